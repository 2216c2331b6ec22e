"""Compiler `native`: DPUCZDX8G machine code for the DPU subgraphs of a compiled graph.

`lowering` reads a DPU subgraph into operations, `tiling` cuts each into pieces that fit the
image banks, `generator` emits the instructions in program order, `synchronise` works out
the dependency masks, `attach` puts code, parameters and register maps on the graph. The
result is compiled by dpuflow, verified on a simulator, not yet on hardware.
"""
