"""Which implementation executes an operation: the compiled kernels where they can, else NumPy."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dpuflow.emulator import c_kernels, oracle
from dpuflow.emulator.kernels import (
    ConcatKernel,
    ShuffleKernel,
    SliceKernel,
    numpy_kernel,
    resample_kernel,
)
from dpuflow.emulator.native_program import Node, Program, can_execute
from dpuflow.emulator.operations import Concat, Operation, PixelShuffle, Resample, Slice, output_shape
from dpuflow.emulator.workspace import Kernel, Workspace
from dpuflow.xir.shapes import Shape

_INT8 = np.dtype(np.int8)


def prepare(op: Operation, shapes: Sequence[Shape], native: bool = False) -> Kernel:
    """Kernel of `op` for inputs of `shapes` (batch first, its size is free).

    It takes and returns float32 arrays; with `native`, int8 arrays (see `c_kernels.library`).
    """
    oracle.require(op)
    if not native:
        return numpy_kernel(op, shapes)
    if can_execute(op, shapes):
        return NativeKernel(op, shapes)
    if isinstance(op, Concat):
        return ConcatKernel(op, np.int8)
    if isinstance(op, PixelShuffle):
        return ShuffleKernel(op, np.int8)
    if isinstance(op, Slice):
        return SliceKernel(op, np.int8)
    if isinstance(op, Resample) and op.kind != "BILINEAR":
        return resample_kernel(op, shapes[0], np.int8)
    return ThroughFloat(numpy_kernel(op, shapes))


class NativeKernel:
    """One operation on the compiled kernels, int8 in and out."""

    def __init__(self, op: Operation, shapes: Sequence[Shape]) -> None:
        self.names = [str(i) for i in range(len(shapes))]
        node = Node("out", tuple(self.names), op, output_shape(op, shapes))
        self.program = Program([node], dict(zip(self.names, shapes, strict=True)), ["out"])

    def __call__(self, inputs: Sequence[np.ndarray], workspace: Workspace) -> np.ndarray:
        count = max(len(x) for x in inputs)
        whole = [x if len(x) == count else np.broadcast_to(x, (count, *x.shape[1:])) for x in inputs]
        return self.program.run(dict(zip(self.names, whole, strict=True)))["out"]


def layers(
    nodes: Sequence[Node], sources: Mapping[str, Shape], outputs: Sequence[str], threads: int = 1
) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """Some layers of a network as one function of the maps that come in, for who wants no whole graph.

    nodes : in order of execution; sources : {name: shape (batch first)} of the maps that are given; outputs :
    names of the nodes that are wanted. The function takes and returns {name: int8 (N, ...)}. It runs on the
    compiled kernels where these can execute all of the nodes, else node by node on what `prepare` makes.
    """
    shapes = {**sources, **{node.name: node.shape for node in nodes}}
    given = [[shapes[name] for name in node.inputs] for node in nodes]
    native = c_kernels.library() is not None
    if native and all(can_execute(node.operation, shape) for node, shape in zip(nodes, given, strict=True)):
        return Program(nodes, sources, outputs, threads).run
    kernels = [
        None if node.operation is None else prepare(node.operation, shape, native)
        for node, shape in zip(nodes, given, strict=True)
    ]

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        values, workspace = dict(inputs), Workspace()
        for node, kernel in zip(nodes, kernels, strict=True):
            maps = [values[name] for name in node.inputs]
            if kernel is None:
                values[node.name] = maps[0].reshape(len(maps[0]), *node.shape[1:])
            else:
                values[node.name] = np.array(kernel(maps, workspace), dtype=np.int8)
        return {name: values[name] for name in outputs}

    return run


class ThroughFloat:
    """A NumPy kernel between int8 neighbours."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def __call__(self, inputs: Sequence[np.ndarray], workspace: Workspace) -> np.ndarray:
        result = self.kernel(inputs, workspace)
        out = workspace.take(self, "int8", result.shape, _INT8)
        np.copyto(out, result, casting="unsafe")
        return out
