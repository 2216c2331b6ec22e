"""A run of integer operations as one program of the compiled kernels: no Python between its layers.

Every map gets its place before anything runs: with the border of zeros that its readers' windows need, inside
the map that a concat joins it to, and in one arena in which maps share room that never live at the same time.
A worker has an arena for a block of images; images that are fewer than workers are done by all of them
together, each a part of every layer.

    program = Program([Node("conv", ("image",), operation, shape)], {"image": shape}, ["conv"], threads=2)
    program.run({"image": images})    # {"conv": int8 (N, ...)}
"""

import ctypes
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dpuflow.base.aligned import aligned
from dpuflow.emulator import c_kernels
from dpuflow.emulator.c_kernels import Ticket
from dpuflow.emulator.native_maps import (
    NO_PAD,
    Tensor,
    arrange,
    flat,
    larger,
    set_lives,
    set_lives_of_one,
)
from dpuflow.emulator.native_steps import (
    Description,
    convolution_order,
    depthwise_order,
    describe,
    pack_channels,
    pack_convolution,
    pack_depthwise,
    pairs,
    run_length,
)
from dpuflow.emulator.native_tickets import tickets
from dpuflow.emulator.operations import Operation
from dpuflow.emulator.requantise import OutOfRangeError
from dpuflow.xir.shapes import Shape

BLOCK_BYTES = 1 << 19
"""Aim for the activations that a block of images reads and writes in its largest step: they stay in the
processor's second cache."""
LEAST_BLOCK, LARGEST_BLOCK = 4, 64
"""Images of a block."""
AT_ONCE_BYTES = 1 << 20
"""Steps that read and write more for a block are done image by image; the others read their weights once."""
PARTS, PART_MICROSECONDS = 4, 4.0
"""A step that several workers share is cut into parts of about so long, at most so many a worker."""
WORTH_CUTTING = 0.5
"""A step that takes less of such a part is one worker's."""
WORTH_SHARING = 1 << 26
"""Products of an image from which on several workers together are faster than one."""


@dataclass(frozen=True)
class Node:
    """An operation (None: the values stay, the shape may change), its inputs, its output's shape.

    Shapes have the batch first.
    """

    name: str
    inputs: tuple[str, ...]
    operation: Operation | None
    shape: Shape


def can_execute(operation: Operation | None, shapes: Sequence[Shape]) -> bool:
    """Whether the compiled kernels execute an operation on inputs of `shapes` (batch first)."""
    if operation is None:
        return True
    try:
        describe(operation, shapes)
    except OutOfRangeError:
        return False
    return True


@dataclass(eq=False)
class _Work:
    """A step to be written: its description and its tensors."""

    description: Description
    inputs: tuple[Tensor, ...]
    output: Tensor | None
    external: int = 0

    @property
    def bytes(self) -> int:
        """What it reads and writes of an image."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors)

    @property
    def microseconds(self) -> float:
        """About what it takes one worker: 400 products a nanosecond (depthwise 50), 30 bytes a nanosecond."""
        known = self.description
        if known.weights is None or self.output is None:
            return self.bytes / 30e3
        products = self.output.h * self.output.w * known.weights.size
        return products / (400e3 if known.kind == "convolve" else 50e3)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of them."""
        return (*self.inputs, self.output) if self.output else self.inputs


class Program:
    """See the module.

    Parameters
    ----------
    nodes : in order of execution.
    sources : {name: shape (batch first)} of the arrays that the caller supplies.
    outputs : names of nodes or sources whose arrays `run` returns.
    threads : workers.
    constants : {name: int8 array (1, ...)} of inputs that are the same for all images.

    OutOfRangeError if the kernels cannot execute an operation (`can_execute`).
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        sources: Mapping[str, Shape],
        outputs: Sequence[str],
        threads: int = 1,
        constants: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.threads = threads
        self.sources, self.outputs = tuple(sources), tuple(outputs)
        self._constants = {name: np.ascontiguousarray(x) for name, x in (constants or {}).items()}
        fixed = {name: x.shape for name, x in self._constants.items()}
        self.shapes = {**{node.name: node.shape for node in nodes}, **sources, **fixed}
        self._kept: list[np.ndarray] = []
        self._tensors: dict[str, Tensor] = {}
        self._works: list[_Work] = []
        self.products = 0
        for i, (name, shape) in enumerate({**sources, **fixed}.items()):
            self._tensors[name] = tensor = Tensor(*flat(shape))
            numbers = {"constant": int(name in fixed)}
            self._works.append(_Work(Description("load", numbers), (), tensor, i))
        self._place(nodes)
        largest = max((work.bytes for work in self._works), default=1)
        self.block = max(LEAST_BLOCK, min(LARGEST_BLOCK, BLOCK_BYTES // largest))
        at_once = [self.block * work.bytes <= AT_ONCE_BYTES for work in self._works]
        tensors = [work.tensors for work in self._works]
        set_lives(tensors, at_once, self.block)
        self.arena_bytes = arrange(tensor for each in tensors for tensor in each)
        self._write(at_once)
        self._arenas: list[np.ndarray] = []
        self._arena_places = c_kernels.addresses([])
        self._held = aligned((c_kernels.HELD_BYTES * threads,), np.uint8)
        self._lock = threading.Lock()
        self._shared, self._tickets = c_kernels.array_of(c_kernels.Map, []), c_kernels.array_of(Ticket, [])
        self._held_at = self._held.ctypes.data
        if threads > 1:
            self._share(tensors)

    # --- what happens, and to which tensors

    def _place(self, nodes: Sequence[Node]) -> None:
        """Works of all nodes; borders and concats decide about layouts, so they come first."""
        described: dict[str, Description] = {}
        moved: dict[str, str] = {}
        for node in nodes:
            if node.operation is None:
                source = self._tensors[node.inputs[0]]
                if source.shape == flat(node.shape):
                    self._tensors[node.name] = source
                else:
                    self._tensors[node.name] = Tensor(*flat(node.shape))
                    moved[node.name] = node.inputs[0]
                continue
            described[node.name] = known = describe(
                node.operation, [self.shapes[name] for name in node.inputs]
            )
            self._tensors[node.name] = Tensor(*flat(node.shape))
            if known.border != NO_PAD and not known.spread:
                source = self._tensors[node.inputs[0]]
                source.border = larger(source.border, known.border)
        made = {self._tensors[name]: name for name in (*described, *self.sources, *self._constants)}
        for node in reversed(nodes):
            if node.name in described and described[node.name].kind == "concat":
                self._join(node, described[node.name], made)
        self._store(self.sources)
        for node in nodes:
            if node.name in moved:
                self._reshape(node, self._tensors[moved[node.name]])
            elif node.name in described:
                self._compute(node, described[node.name])
            self._store([node.name])

    def _store(self, names: Sequence[str]) -> None:
        for number, name in enumerate(self.outputs):
            if name in names:
                self._works.append(_Work(Description("store"), (self._tensors[name],), None, number))

    def _join(self, node: Node, known: Description, made: Mapping[Tensor, str]) -> None:
        """Let the inputs of a concat be written where it wants them."""
        whole, channel = self._tensors[node.name], 0
        for i, name in enumerate(node.inputs):
            part = self._tensors[name]
            alone = sum(self._tensors[other] is part for other in node.inputs) == 1
            fits = part in made and not part.within and alone and f"table{i}" not in known.arrays
            if fits and part.shape[:2] == whole.shape[:2]:
                part.within, part.channel = whole, channel
                root = whole.root
                root.border = larger(root.border, part.border)
            channel += part.c

    def _reshape(self, node: Node, source: Tensor) -> None:
        target = self._tensors[node.name]
        if not (source.dense and source.root.border == NO_PAD):
            packed = Tensor(*source.shape)
            self._works.append(_Work(Description("copy"), (source,), packed))
            source = packed
        if target.within or target.border != NO_PAD:
            plain = Tensor(*target.shape, same=source)
            self._works.append(_Work(Description("copy"), (plain,), target))
        else:
            target.same = source

    def _compute(self, node: Node, known: Description) -> None:
        inputs, output = tuple(self._tensors[name] for name in node.inputs), self._tensors[node.name]
        if known.spread:
            h, w, rows, columns = known.spread
            wide = Tensor(h, w, inputs[0].c, border=known.border)
            self._works.append(
                _Work(Description("spread", {"stride_h": rows, "stride_w": columns}), inputs, wide)
            )
            inputs = (wide,)
        if known.kind == "concat":
            channel = 0
            for i, part in enumerate(inputs):
                if part.within is not output or part.channel != channel:
                    table = known.arrays.get(f"table{i}")
                    arrays = {} if table is None else {"table": table}
                    place = Tensor(output.h, output.w, part.c, within=output, channel=channel)
                    self._works.append(_Work(Description("copy", arrays=arrays), (part,), place))
                channel += part.c
        elif known.channel is not None:
            (whole,) = inputs
            view = Tensor(whole.h, whole.w, output.c, within=whole, channel=known.channel)
            self._works.append(_Work(known, (view,), output))
        elif known.kind == "convolve" and known.group > 1:
            self._groups(known, inputs[0], output)
        else:
            self._works.append(_Work(known, inputs, output))
        if known.weights is not None:
            self.products += output.h * output.w * known.weights.size

    def _groups(self, known: Description, source: Tensor, output: Tensor) -> None:
        width_in, width_out = source.c // known.group, output.c // known.group
        for g in range(known.group):
            part = slice(g * width_out, (g + 1) * width_out)
            one = Description(**{**vars(known), "group": 1})
            one.weights, one.sums = known.weights[part], known.sums[part]  # type: ignore[index]
            one.bias = None if known.bias is None else known.bias[part]
            view = Tensor(source.h, source.w, width_in, within=source, channel=g * width_in)
            place = Tensor(output.h, output.w, width_out, within=output, channel=g * width_out)
            self._works.append(_Work(one, (view,), place))

    # --- as the C code reads it

    def _write(self, at_once: Sequence[bool]) -> None:
        maps: list[c_kernels.Map] = []
        steps = (c_kernels.Step * len(self._works))()
        for step, work, whole in zip(steps, self._works, at_once, strict=True):
            step.at_once = whole
            known = work.description
            step.kind = c_kernels.KINDS.index(known.kind)
            step.count, step.external = len(work.inputs), work.external
            numbers = np.arange(len(maps), len(maps) + len(work.inputs))
            maps += [tensor.map(0) for tensor in work.inputs]
            step.inputs = self._address(numbers.astype(np.int64))
            step.output = len(maps)
            maps += [work.output.map(0)] if work.output else []
            for name, value in known.numbers.items():
                setattr(step, name, value)
            for name, array in known.arrays.items():
                setattr(step, name, self._address(array))
            if known.weights is not None:
                self._pack(step, known, maps)
            step.parts = _parts(work.microseconds, self.threads)
        self._map_count = len(maps)
        everywhere = [
            t.map(image) for image in range(self.block) for work in self._works for t in work.tensors
        ]
        self._maps = c_kernels.array_of(c_kernels.Map, everywhere)
        self._steps = steps

    def _share(self, tensors: Sequence[Sequence[Tensor]]) -> None:
        """Places and parts of an image that all workers do together."""
        set_lives_of_one(tensors)
        self.arena_bytes = max(self.arena_bytes, arrange(tensor for each in tensors for tensor in each))
        self._shared = c_kernels.array_of(c_kernels.Map, [t.map(0) for each in tensors for t in each])
        inputs, outputs = [work.inputs for work in self._works], [work.output for work in self._works]
        self._tickets = c_kernels.array_of(
            Ticket, tickets(self._run_of(0, 0, 1), self._steps, inputs, outputs)
        )

    def _pack(self, step: c_kernels.Step, known: Description, maps: Sequence[c_kernels.Map]) -> None:
        """Weights and what belongs to them."""
        assert known.weights is not None
        lanes = c_kernels.lanes()
        source, output = maps[step.output - 1], maps[step.output]
        order = convolution_order(output.c, lanes)
        if known.kind == "depthwise":
            order = depthwise_order(output.c, lanes, pairs(known, output.c, lanes))
            step.paired = pairs(known, output.c, lanes)
            weights = pack_depthwise(known.weights, order, lanes)
        else:
            _, kernel_h, kernel_w, channels = known.weights.shape
            joined = step.dilation_w == 1 and source.pixel == channels
            weights, step.quads = pack_convolution(known.weights, joined, order, lanes)
            columns = 1 if joined else kernel_w
            taps = [
                r * step.dilation_h * source.row + c * step.dilation_w * source.pixel
                for r in range(kernel_h)
                for c in range(columns)
            ]
            step.taps, step.tap_count = self._address(np.array(taps, np.int64)), len(taps)
            step.run = run_length(output.w if output.h * output.w > 1 else 1 << 30)
        step.weights = self._address(weights)
        step.offset = self._address(pack_channels(known.sums, order))
        step.bias = self._address(pack_channels(known.bias, order))

    def _address(self, array: np.ndarray) -> int:
        """Address of an aligned copy that lives as long as the program."""
        raw = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
        copy = aligned((raw.size + c_kernels.SLACK,), np.uint8)
        copy[: raw.size] = raw
        self._kept.append(copy)
        return copy.ctypes.data

    # --- running

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """{source: int8 (N, ...)} -> {output: int8 (N, ...)}; ValueError for other arrays."""
        count = len(next(iter(inputs.values())))
        results = {name: np.empty((count, *self.shapes[name][1:]), np.int8) for name in self.outputs}
        self.run_into(inputs, results)
        return results

    def run_into(self, inputs: Mapping[str, np.ndarray], results: Mapping[str, np.ndarray]) -> None:
        """As `run`, into int8 arrays that are there (C-contiguous)."""
        given = [np.ascontiguousarray(inputs[name]) for name in self.sources]
        count = len(given[0])
        for name, x in zip(self.sources, given, strict=True):
            expected = (count, *self.shapes[name][1:])
            if x.dtype != np.int8 or x.shape != expected:  # the C code would read other bytes
                raise ValueError(f"{name!r}: int8 {expected} expected, got {x.dtype} {x.shape}")
        given += self._constants.values()
        share = self.products >= WORTH_SHARING
        workers = self.threads if share else max(1, min(self.threads, count))
        alone = count - count % workers if share else count
        with self._lock:
            if len(self._arenas) < workers:
                missing = workers - len(self._arenas)
                self._arenas += [c_kernels.arena(self.arena_bytes) for _ in range(missing)]
                self._arena_places = c_kernels.addresses(self._arenas)
            run = self._run_of(count, alone, workers)
            targets = [results[name] for name in self.outputs]
            places = c_kernels.addresses(given), c_kernels.addresses(targets), self._arena_places
            run.sources, run.targets, run.arenas = map(ctypes.addressof, places)
            c_kernels.loaded().perform(ctypes.byref(run))

    def _run_of(self, count: int, alone: int, workers: int) -> c_kernels.Run:
        """A call of `count` images, of which each of the first `alone` is one worker's; without arrays."""
        block = max(1, min(self.block, alone // workers))
        return c_kernels.Run(
            *(ctypes.addressof(self._maps), ctypes.addressof(self._steps), self._map_count, len(self._steps)),
            *(ctypes.addressof(self._shared), ctypes.addressof(self._tickets), len(self._tickets)),
            *(count, block, alone, workers, None, None, None, self._held_at, 0),
        )


def _parts(microseconds: float, threads: int) -> int:
    """Parts of a step of an image: as many for each worker."""
    if threads == 1 or microseconds < WORTH_CUTTING * PART_MICROSECONDS:
        return 1
    return threads * max(1, min(PARTS, round(microseconds / PART_MICROSECONDS / threads)))
