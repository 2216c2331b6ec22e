"""The Emulator: a graph, its constants and its plans."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dpuflow.base.errors import UserError, about
from dpuflow.base.numerics import dequantize, input_table
from dpuflow.emulator import c_kernels, plan
from dpuflow.emulator.execute import Executor, core_count
from dpuflow.xir import Graph, validate
from dpuflow.xir.parameters import CONSTANT_TYPES, constants

MAX_VALUES = 2**28
"""Values of all tensors, per image: bounds the emulator's memory; no network for a DPU comes near."""


@dataclass(frozen=True)
class Part:
    """A top-level subgraph: its device and the ops at its border (`dpuflow.xir.Op`).

    inputs are ops outside that feed it, outputs are ops inside that others read or
    that end the graph.
    """

    name: str
    device: str
    inputs: tuple
    outputs: tuple


class Emulator:
    """Executes an xmodel, compiled (integer) or quantized only (float with `fix`).

    Parameters
    ----------
    graph : dpuflow.xir.Graph, or the path of a file.
    threads : worker threads; by default one per core this process may use.
    use_native : False forces the NumPy kernels; the results are the same.

    UserError when the file is unreadable or lacks its weights; an op that the emulator
    does not know is reported by `run` (and by `run_subgraph` of the part that holds it).
    """

    def __init__(self, graph, threads=None, use_native=True):
        self.graph = graph if isinstance(graph, Graph) else Graph.load(graph)
        self.source = str(self.graph.source or f"graph {self.graph.name!r}")
        if self.graph.source:  # `add_op` checked what was built here; a file may say anything
            validate.require(validate.validate(self.graph, devices=False), self.source)
        values = sum(math.prod(op.tensor.shape) for op in self.graph.ops)
        if values > MAX_VALUES:
            raise UserError(
                f"{self.source}: its tensors hold {values} values; the emulator takes up to {MAX_VALUES}"
            )
        self.threads = threads or core_count()
        self.native = use_native and c_kernels.library() is not None
        with about(self.source):
            self._constants = constants(self.graph)
        self._executors = {}

    def close(self):
        """Stop the worker threads; the emulator can still be used, and starts new ones."""
        for executor in self._executors.values():
            executor.close()
        self._executors.clear()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    @property
    def backend(self):
        """ "native" (compiled kernels, `c_kernels.py`) or "numpy"."""
        return "native" if self.native else "numpy"

    @cached_property
    def input(self):
        """The op whose value `run` takes; UserError when there is not exactly one."""
        sources = [op for op in self.graph.ops if op.type in plan.SOURCES]
        if len(sources) != 1:
            names = ", ".join(op.name for op in sources) or "none"
            raise UserError(f"{self.source}: has {len(sources)} inputs ({names}); run takes one")
        return sources[0]

    @cached_property
    def outputs(self):
        """Ops whose values `run` returns: those that nobody reads, or the graph's return_ops."""
        named = self.graph.attrs.get("return_ops")
        if named:
            return [self.graph.op(name) for name in named]
        return self._ends(self.graph.ops)

    def _ends(self, ops):
        inside = {op.name for op in ops}
        fixed = (*plan.SOURCES, *CONSTANT_TYPES)
        readers = {op.name: [] for op in self.graph.ops}
        for op in self.graph.ops:
            for name in op.input_names:
                readers[name].append(op.name)
        return [
            op
            for op in ops
            if op.type not in fixed and not (readers[op.name] and inside.issuperset(readers[op.name]))
        ]

    @cached_property
    def input_fix_point(self):
        """fix_point of the model's int8 input."""
        source = self.input
        if source.tensor.fix_point is not None:
            return source.tensor.fix_point
        fixes = [op for op in self.graph.consumers(source.name) if op.type in ("fix", "float2fix")]
        if len(fixes) != 1:
            raise UserError(
                f"{self.source}: input {source.name!r} has no fix_point, and no `fix` op follows it"
            )
        return fixes[0].attr("fix_point")

    def quantize_input(self, images):
        """uint8 images (N, H, W) or (N, H, W, C) -> int8 (N, H, W, C), as the board's host code does.

        The float network's input scaling stands in the graph's attributes input_subtract
        and input_divide: float input = (pixel - subtract) / divide.
        """
        try:
            subtract, divide = (float(self.graph.attrs[f"input_{name}"]) for name in ("subtract", "divide"))
        except KeyError:
            raise UserError(
                f"{self.source}: does not record its input scaling (attributes input_subtract, "
                "input_divide); quantize the images yourself, for instance with numerics.input_table"
            ) from None
        images = np.asarray(images)
        if images.dtype != np.uint8:
            raise UserError(f"images have dtype {images.dtype}; uint8 pixels expected")
        shape = (images.shape[0], *self.input.tensor.shape[1:])
        if images.size != np.prod(shape) or images.shape[1:3] != shape[1:3]:
            raise UserError(f"images of shape {images.shape} do not fit the model's input {shape}")
        return input_table(subtract, divide, self.input_fix_point)[images].reshape(shape)

    def run(self, batch, dump=False):
        """Execute the whole graph on int8 images (N, H, W, C).

        Returns the output as an array (N, ...), float32 behind softmax or fix2float; a
        dict {op name: array} if the graph has several outputs. With `dump`, a dict of
        every op's tensor (constants left out): int8 for integer ops.
        """
        source = self.input
        batch = self._checked(batch, source)
        if source.tensor.data_type == "FLOAT" and batch.dtype == np.int8:
            batch = dequantize(batch, self.input_fix_point)
        outputs = [op.name for op in self.outputs]
        executor = self._executor("", self.graph.ops, [source.name], outputs)
        results = executor({source.name: batch}, dump)
        if dump:
            return {source.name: batch, **results}
        return results[outputs[0]] if len(outputs) == 1 else results

    @cached_property
    def parts(self):
        """Top-level subgraphs in execution order, as `Part`s."""
        found = []
        for subgraph in self.graph.subgraphs():
            ops = [self.graph.op(name) for name in subgraph.op_names]
            inside = set(subgraph.op_names)
            feeders = {name: None for op in ops for name in op.input_names if name not in inside}
            inputs = tuple(self.graph.op(name) for name in feeders)
            outputs = [op for op in ops if op.type in plan.SOURCES] or self._ends(ops)
            found.append(Part(subgraph.name, subgraph.device, inputs, tuple(outputs)))
        return found

    def part(self, name_or_index):
        """The Part called so, or number so in execution order."""
        parts = self.parts
        if isinstance(name_or_index, int):
            if not -len(parts) <= name_or_index < len(parts):
                raise UserError(f"there is no subgraph number {name_or_index}; the graph has {len(parts)}")
            return parts[name_or_index]
        for part in parts:
            if part.name == name_or_index:
                return part
        names = ", ".join(part.name for part in parts) or "none"
        raise UserError(f"there is no subgraph {name_or_index!r}; the graph has {names}")

    def run_subgraph(self, name_or_index, inputs, dump=False):
        """Execute one top-level subgraph: {input name: array (N, ...)} -> {output op name: array}.

        An input goes by the name of the op that feeds the subgraph, of that op's tensor,
        or of the upload op (or its tensor) that takes it in.
        """
        part = self.part(name_or_index)
        given = {op.name: self._checked(self._find(op, inputs, part), op) for op in part.inputs}
        names = next(s for s in self.graph.subgraphs() if s.name == part.name).op_names
        members = set(names)
        ops = [op for op in self.graph.ops if op.name in members]
        executor = self._executor(part.name, ops, list(given), [op.name for op in part.outputs])
        return executor(given, dump)

    def _find(self, op, inputs, part):
        uploads = [reader for reader in self.graph.consumers(op.name) if reader.type == "upload"]
        accepted = [name for o in (op, *uploads) for name in (o.name, o.tensor.name)]
        for name in accepted:
            if name in inputs:
                return inputs[name]
        raise UserError(f"subgraph {part.name!r} needs an input called {accepted[0]!r}; got {sorted(inputs)}")

    def _checked(self, batch, op):
        """The batch as an array of the op's type; UserError when its shape or dtype differs."""
        batch = np.asarray(batch)
        expected = tuple(op.tensor.shape[1:])
        if batch.shape[1:] != expected:
            wanted = ", ".join(["N", *map(str, expected)])
            raise UserError(f"input {op.name!r} has shape {batch.shape}; ({wanted}) expected")
        if op.tensor.data_type in ("XINT", "INT") and batch.dtype != np.int8:
            raise UserError(f"input {op.name!r} has dtype {batch.dtype}; int8 expected")
        return batch

    def _executor(self, key, ops, sources, outputs):
        if key not in self._executors:
            with about(self.source):
                built = plan.build(self.graph, ops, sources, outputs, self._constants, self.native)
            self._executors[key] = Executor(built, self.threads, bytes_per_value=1 if self.native else 4)
        return self._executors[key]
