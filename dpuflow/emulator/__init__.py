"""Bit-exact execution of DPU models on the CPU, from the `.xmodel` file alone.

    emulator = Emulator("signnet.xmodel")
    images = emulator.quantize_input(pixels)     # uint8 (N, H, W) or (N, H, W, C) -> int8
    probabilities = emulator.run(images)         # of the last op, usually softmax: float32 (N, classes)
    tensors = emulator.run(images, dump=True)    # {op name: array} of every op

Some layers on given int8 maps, without a graph: `implementations.layers` (a range of layers), or
`implementations.prepare` (one operation):

    run = layers([Node("conv", ("image",), operation, shape)], {"image": images.shape}, ["conv"], threads=2)
    maps = run({"image": images})                # {"conv": int8 (N, ...)}

Semantics: docs/reference/numerics.md. Nothing here is a simulation of time; for that see
the compiler's estimate.
"""

from dpuflow.emulator.emulator import Emulator

__all__ = ["Emulator"]
