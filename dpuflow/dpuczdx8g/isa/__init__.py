"""Machine code of the DPUCZDX8G (instruction set ISA1): formats, assembler, simulator.

Source of everything here: docs/reference/instruction-set.md. `formats` holds the instruction layouts as data,
`code` turns bytes into instructions and back, `assembly` into text and back, `simulator`
executes the code of an xmodel's DPU subgraphs, `ordering` proves that its dependency
masks order every access to the same memory.
"""
