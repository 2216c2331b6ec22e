"""The Emulator: a graph, its constants and its plans."""

import logging
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, overload

import numpy as np

from dpuflow.base.errors import UserError, about
from dpuflow.base.numerics import dequantize
from dpuflow.base.pixels import problem
from dpuflow.emulator import c_kernels, plan, support
from dpuflow.emulator.execute import Executor, core_count
from dpuflow.emulator.native_pixels import quantize_pixels
from dpuflow.xir import Graph, Op, ends, parameters, validate
from dpuflow.xir.input_scaling import recorded_scaling
from dpuflow.xir.parameters import CONSTANT_TYPES
from dpuflow.xir.shapes import Shape

log = logging.getLogger("dpuflow")

Batch = np.ndarray | Mapping[str, np.ndarray]
"""Images (N, ...) of the only input, or of each input by its name."""

MAX_VALUES = 2**28
"""Values of all tensors, per image: bounds the emulator's memory; no network for a DPU comes near."""


@dataclass(frozen=True)
class Part:
    """A top-level subgraph: its device and the ops at its border (`dpuflow.xir.Op`).

    inputs are ops outside that feed it, outputs are ops inside that others read or
    that end the graph.
    """

    name: str
    device: str | None
    inputs: tuple[Op, ...]
    outputs: tuple[Op, ...]


class Emulator:
    """Executes an xmodel, compiled (integer) or quantized only (float with `fix`).

    Parameters
    ----------
    graph : dpuflow.xir.Graph, or the path of a file.
    threads : worker threads; by default one per core this process may use.
    use_native : False forces the NumPy kernels; the results are the same.
    subgraphs : names (or numbers) of the top-level subgraphs that will be run, or "DPU" or "CPU" for
        all of that device; by default the whole graph. For a file of which another program runs the
        rest: a CPU op of the user's own, machine code.
    constants : values of const ops by their names, for a graph that does not hold them itself.

    UserError when the file is unreadable or lacks its weights, is compiled for another family of
    DPUs, or holds ops (in `subgraphs`, if given) that the emulator cannot execute: all of them are
    listed. What is odd in a foreign file but runs is logged as a warning.
    """

    def __init__(
        self,
        graph: Graph | Path | str,
        threads: int | None = None,
        use_native: bool = True,
        subgraphs: str | Sequence[str | int] | None = None,
        constants: Mapping[str, np.ndarray] | None = None,
    ) -> None:
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
        for oddity in validate.oddities(self.graph):
            log.warning("warning: %s: %s", self.source, oddity)
        self._executors: dict[Hashable, Executor] = {}
        self._slow: set[str] = set()
        self._expected: dict[str, tuple[Shape, bool]] = {}
        with about(self.source):
            support.require_family(self.graph)
            wanted = self._wanted(subgraphs)
            support.require_ops(wanted, plan.known_types())
            self._constants = parameters.constants(self.graph, constants, wanted)
        if subgraphs is None:
            self._whole()

    def _wanted(self, subgraphs: str | Sequence[str | int] | None) -> list[Op]:
        """The ops that the parameter `subgraphs` asks for."""
        if subgraphs is None:
            return self.graph.ops
        if isinstance(subgraphs, str):
            subgraphs = [subgraph.name for subgraph in self.graph.subgraphs(subgraphs)]
        names = {name for given in subgraphs for name in self._subgraph(self.part(given).name)}
        return [op for op in self.graph.ops if op.name in names]

    def close(self) -> None:
        """Stop the worker threads; the emulator can still be used, and starts new ones."""
        for executor in self._executors.values():
            executor.close()
        self._executors.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def backend(self) -> str:
        """ "native" (compiled kernels, `c_kernels.py`) or "numpy"."""
        return "native" if self.native else "numpy"

    @cached_property
    def inputs(self) -> list[Op]:
        """The ops whose values `run` takes."""
        return [op for op in self.graph.ops if op.type in plan.SOURCES]

    @property
    def input(self) -> Op:
        """The op whose value `run` takes; UserError when there is not exactly one."""
        if len(self.inputs) != 1:
            names = ", ".join(op.name for op in self.inputs) or "none"
            raise UserError(
                f"{self.source}: has {len(self.inputs)} inputs ({names}); give them by name, {{name: array}}"
            )
        return self.inputs[0]

    @cached_property
    def outputs(self) -> list[Op]:
        """Ops whose values `run` returns (`xir.ends.outputs`)."""
        return ends.outputs(self.graph)

    def _read_outside(self, ops: Sequence[Op]) -> list[Op]:
        """Of the ops of a part those that others read, or nobody."""
        inside = {op.name for op in ops}
        fixed = (*plan.SOURCES, *CONSTANT_TYPES)
        readers: dict[str, list[str]] = {op.name: [] for op in self.graph.ops}
        for op in self.graph.ops:
            for name in op.input_names:
                readers[name].append(op.name)
        return [
            op
            for op in ops
            if op.type not in fixed and not (readers[op.name] and inside.issuperset(readers[op.name]))
        ]

    @property
    def input_fix_point(self) -> int:
        """fix_point of the model's int8 input."""
        return self._source_fix_point(self.input)

    def _source_fix_point(self, source: Op) -> int:
        if source.tensor.fix_point is not None:
            return source.tensor.fix_point
        fixes = [op for op in self.graph.consumers(source.name) if op.type in ("fix", "float2fix")]
        points = {op.attr("fix_point") for op in fixes}
        if len(points) != 1:
            raise UserError(
                f"{self.source}: input {source.name!r} has no fix_point, and "
                + (
                    f"`fix` ops of different ones follow it: {sorted(points)}"
                    if points
                    else "no `fix` op follows it"
                )
            )
        return points.pop()

    @overload
    def quantize_input(self, images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]: ...

    @overload
    def quantize_input(self, images: np.ndarray) -> np.ndarray: ...

    def quantize_input(self, images: Batch) -> np.ndarray | dict[str, np.ndarray]:
        """uint8 images (N, H, W) or (N, H, W, C) -> int8 (N, H, W, C), as the board's host code does.

        Of several inputs {input's name: images} -> {input's name: int8 images}. The float network's input
        scaling, one for all inputs, stands in the graph's attributes (`xir.input_scaling`).
        """
        scaling = recorded_scaling(self.graph)
        if scaling is None:
            raise UserError(
                f"{self.source}: does not record its input scaling (attributes input_subtract, "
                "input_divide); quantize the images yourself, for instance with base.pixels.quantize_pixels"
            )
        if isinstance(images, Mapping):
            unknown = sorted(set(images) - {name for op in self.inputs for name in (op.name, op.tensor.name)})
            if unknown:
                names = ", ".join(op.name for op in self.inputs)
                raise UserError(f"{self.source}: has no input {unknown[0]!r}; its inputs are {names}")
            given = {op: self._given(op, [op], images) for op in self.inputs}
            return {op.name: self._quantized(op, array, scaling) for op, array in given.items()}
        return self._quantized(self.input, images, scaling)

    def _quantized(self, source: Op, images: np.ndarray, scaling: Mapping[str, Any]) -> np.ndarray:
        images = np.asarray(images)
        if images.dtype != np.uint8:
            raise UserError(f"images have dtype {images.dtype}; uint8 pixels expected")
        shape = (images.shape[0], *source.tensor.shape[1:])
        if images.size != np.prod(shape) or images.shape[1:3] != shape[1:3]:
            of = "the model's input" if len(self.inputs) == 1 else f"the model's input {source.name!r}"
            raise UserError(f"images of shape {images.shape} do not fit {of} {shape}")
        found = problem(scaling, shape[-1])
        if found:
            raise UserError(
                f"{self.source}: its input scaling is no scaling: {found}; the file is damaged, compile the "
                "model again"
            )
        return quantize_pixels(images.reshape(shape), scaling, self._source_fix_point(source))

    @overload
    def run(self, batch: Batch, dump: Literal[True]) -> dict[str, np.ndarray]: ...

    @overload
    def run(self, batch: Batch, dump: Literal[False] = False) -> Any: ...

    def run(self, batch: Batch, dump: bool = False) -> np.ndarray | dict[str, np.ndarray]:
        """Execute the whole graph on int8 images (N, H, W, C); {input name: array} if it has several inputs.

        Returns the output as an array (N, ...), float32 behind softmax or fix2float; a
        dict {op name: array} if the graph has several outputs. With `dump`, a dict of
        every op's tensor (constants left out): int8 for integer ops.
        """
        given = batch if isinstance(batch, Mapping) else {self.input.name: batch}
        batches = {op.name: self._checked(self._given(op, [op], given), op) for op in self.inputs}
        for op in self.inputs:
            if batches[op.name].dtype == np.int8 and op.tensor.data_type == "FLOAT":
                batches[op.name] = dequantize(batches[op.name], self._source_fix_point(op))
        if len({len(array) for array in batches.values()}) > 1:
            counts = {name: len(array) for name, array in batches.items()}
            raise UserError(f"{self.source}: as many images for every input expected, got {counts}")
        results = self._whole()(batches, dump)
        if dump:
            return {**batches, **results}
        return results[self.outputs[0].name] if len(self.outputs) == 1 else results

    def _whole(self) -> Executor:
        """The executor of the whole graph."""
        if "" in self._executors:
            return self._executors[""]
        names = ([op.name for op in ops] for ops in (self.inputs, self.outputs))
        return self._executor("", self.graph.ops, *names)

    def values(self, batch: Batch, names: Sequence[str]) -> dict[str, np.ndarray]:
        """{op name: array (N, ...)} of the named ops for int8 images (N, H, W, C), from the inputs on.

        Of several inputs {input's name: images}.
        """
        given = batch if isinstance(batch, Mapping) else {self.input.name: batch}
        batches = {op.name: self._checked(self._given(op, [op], given), op) for op in self.inputs}
        executor = self._executor(("values", *names), self.graph.ops, list(batches), list(names))
        return executor(batches)

    @cached_property
    def parts(self) -> list[Part]:
        """Top-level subgraphs in execution order, as `Part`s."""
        found = []
        for subgraph in self.graph.subgraphs():
            ops = [self.graph.op(name) for name in subgraph.op_names]
            inside = set(subgraph.op_names)
            feeders = {name: None for op in ops for name in op.input_names if name not in inside}
            inputs = tuple(self.graph.op(name) for name in feeders)
            outputs = [op for op in ops if op.type in plan.SOURCES] or self._read_outside(ops)
            if subgraph.device == "CPU":  # what other ops of it read may be an output of the graph as well
                outputs += [op for op in self.outputs if op.name in inside and op not in outputs]
            found.append(Part(subgraph.name, subgraph.device, inputs, tuple(outputs)))
        return found

    def ops_of(self, part: Part) -> list[Op]:
        """Ops of a Part in order of execution."""
        members = set(self._subgraph(part.name))
        return [op for op in self.graph.ops if op.name in members]

    def part(self, name_or_index: str | int) -> Part:
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

    def run_subgraph(
        self, name_or_index: str | int, inputs: Mapping[str, np.ndarray], dump: bool = False
    ) -> dict[str, np.ndarray]:
        """Execute one top-level subgraph: {input name: array (N, ...)} -> {output op name: array}.

        An input goes by the name of the op that feeds the subgraph, of that op's tensor,
        or of the upload op (or its tensor) that takes it in.
        """
        part = self.part(name_or_index)
        if not part.inputs:
            raise UserError(f"subgraph {part.name!r} computes nothing: it holds the graph's inputs")
        ops = self.ops_of(part)
        members = {op.name for op in ops}
        names = ([op.name for op in ends] for ends in (part.inputs, part.outputs))
        executor, given = self._executor(part.name, ops, *names), {}
        for op in part.inputs:
            uploads = [o for o in self.graph.consumers(op.name) if o.type == "upload" and o.name in members]
            given[op.name] = self._checked(self._given(op, [op, *uploads], inputs, part), op)
        return executor(given, dump)

    def run_op(self, name: str, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Execute one op on its inputs' tensors, constants left out; the op's tensor (N, ...)."""
        op = self.graph.op(name)
        sources = [source for source in op.input_names if source not in self._constants]
        given = {
            source: self._checked(array, self.graph.op(source))
            for source, array in zip(sources, inputs, strict=True)
        }
        with about(self.source):
            built = plan.build(self.graph, [op], list(given), [name], self._constants, self.native)
        executor = Executor(built, self.threads, bytes_per_value=1 if self.native else 4)
        try:
            return executor(given)[name]
        finally:
            executor.close()

    def _subgraph(self, name: str) -> list[str]:
        """Names of the ops of the top-level subgraph called so."""
        return next(s for s in self.graph.subgraphs() if s.name == name).op_names

    def _given(
        self, op: Op, aliases: Sequence[Op], inputs: Mapping[str, np.ndarray], part: Part | None = None
    ) -> np.ndarray:
        """The array for `op` among `inputs`: by the name of one of `aliases` or of its tensor."""
        accepted = [name for o in aliases for name in (o.name, o.tensor.name)]
        for name in accepted:
            if name in inputs:
                return inputs[name]
        reader = f"subgraph {part.name!r}" if part else self.source
        raise UserError(f"{reader} needs an input called {accepted[0]!r}; got {sorted(inputs)}")

    def _checked(self, batch: np.ndarray, op: Op) -> np.ndarray:
        """The batch as an array of the op's type; UserError when its shape or dtype differs."""
        batch = np.asarray(batch)
        if op.name not in self._expected:
            integer = op.tensor.data_type in ("XINT", "INT")
            self._expected[op.name] = tuple(op.tensor.shape[1:]), integer
        expected, integer = self._expected[op.name]
        if batch.shape[1:] != expected:
            wanted = ", ".join(["N", *map(str, expected)])
            raise UserError(f"input {op.name!r} has shape {batch.shape}; ({wanted}) expected")
        if integer and batch.dtype != np.int8:
            raise UserError(f"input {op.name!r} has dtype {batch.dtype}; int8 expected")
        return batch

    def _say_slow(self, built: plan.Plan) -> None:
        """Name, once, the operations that have no compiled kernel."""
        slow = [step.name for step in built.steps if step.operation and not step.node] if self.native else []
        named = ", ".join(f"{name} ({self.graph.op(name).type})" for name in slow if name not in self._slow)
        self._slow.update(slow)
        if named:
            log.warning(
                "warning: %s: runs on NumPy, slower: %s; the compiled kernels have no code for such an op, "
                "or its sums or shifts leave their 32 bits",
                self.source,
                named,
            )

    def _executor(
        self, key: Hashable, ops: Sequence[Op], sources: Sequence[str], outputs: Sequence[str]
    ) -> Executor:
        if key not in self._executors:
            with about(self.source):
                support.require_ops(ops, plan.known_types())
                built = plan.build(self.graph, ops, sources, outputs, self._constants, self.native)
            self._say_slow(built)
            self._executors[key] = Executor(built, self.threads, bytes_per_value=1 if self.native else 4)
        return self._executors[key]
