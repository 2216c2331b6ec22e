"""Verifies machine code against the emulator on every feature map, before anybody gets to see it.

Two runs on the instruction simulator. *Images*: the network as it is, every map compared with
the emulator's. *Layer by layer*: whenever an instruction has written its piece of a map, the
piece is compared and then overwritten by one of a made map (`probes`), so that each layer
works on inputs that take it to its limits, whatever the layers before it can give.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dpuflow.base.pixels import quantize_pixels
from dpuflow.dpuczdx8g.isa.engines import Memory
from dpuflow.dpuczdx8g.isa.program import Port
from dpuflow.dpuczdx8g.isa.simulator import Simulator
from dpuflow.dpuczdx8g.isa.steps import Step
from dpuflow.dpuczdx8g.native import branches, probes
from dpuflow.dpuczdx8g.native.compile import CompiledSubgraph
from dpuflow.dpuczdx8g.native.operations import KINDS
from dpuflow.emulator import Emulator
from dpuflow.network import QuantizedNetwork

SEED = 0
AT_ONCE = 2**18
"""Values of a layer's inputs whose sums are looked at at once, for the branches that it takes."""


class DisagreementError(RuntimeError):
    """Machine code that computes something else than the emulator: a defect of the compiler."""


def verify(
    quantized: QuantizedNetwork,
    reference: Emulator,
    simulators: Mapping[str, Simulator],
    programs: Sequence[CompiledSubgraph],
    calibration: np.ndarray | Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Compare machine code with the emulator; DisagreementError names the first layer that differs.

    Parameters
    ----------
    quantized : the QuantizedNetwork that was compiled.
    reference : Emulator of the reference compiler's graph.
    simulators : DPU subgraph's name -> isa.Simulator of its code.
    programs : the CompiledSubgraphs.
    calibration : uint8 images (N, H, W, C) that the network was calibrated on, or such for each input by
        its name, or None.

    Returns
    -------
    The record for compile.json: what was compared, on what, and which branches each layer took.
    """
    random = np.random.default_rng(SEED)
    images, taken = _images(quantized, reference, programs, calibration, random)
    maps = reference.run(images, dump=True)
    reference.close()  # its packed weights: what follows runs op by op
    layers, values = {}, 0
    for program in programs:
        simulator = simulators[program.name]
        watch = _Watch(program, maps)
        ports = [maps[port.op] for port in simulator.program.inputs]
        outputs = simulator.run(ports, watch=watch)
        watch.finish(simulator.program.outputs, outputs)
        made = _LayerRun(quantized, reference, program, random)
        watch = _Watch(program, made.expected, made.inputs)
        outputs = simulator.run(made.ports, interleave=SEED, watch=watch)
        watch.finish(simulator.program.outputs, outputs)
        values += watch.values
        for op in made.ops:
            given = [maps[name] for name in op.inputs["input"]]
            layers[op.name] = _branches(quantized, quantized.network[op.name], given, made.given[op.name])
    return _record(layers, values, len(next(iter(images.values()))), taken)


def _images(quantized, reference, programs, calibration, random):
    """{input's name: int8 images} that reach the most, and how many of them are from the calibration."""
    graph = reference.graph
    work = sum(int(np.prod(op.tensor.shape)) for op in graph.ops)
    work += sum(op.attrs.get("workload", 0) // 2 for op in graph.ops)
    pool, first = {}, 0
    for op in reference.inputs:
        pixels = calibration.get(op.name) if isinstance(calibration, Mapping) else calibration
        shape = tuple(op.tensor.shape[1:])
        if pixels is not None:
            grid = quantize_pixels(np.asarray(pixels), quantized.input_scaling, op.tensor.fix_point)
            pixels = grid.reshape(-1, *shape)
        pool[op.name], first = probes.candidates(work, pixels, shape, random)
    maps = reference.run(pool, dump=True)
    names = {operation.name for program in programs for operation in program.lowered.job.operations}
    chosen = probes.choose({name: maps[name] for name in names}, first)
    return {name: made[chosen] for name, made in pool.items()}, sum(i < first for i in chosen)


class _LayerRun:
    """Made inputs for every layer of a subgraph and what the emulator makes of them.

    Attributes
    ----------
    ops : the computing ops in order; given : op name -> its inputs.
    ports : arrays for the program's inputs.
    expected : op name -> what the layer must compute from its inputs.
    inputs : op name -> the map that the layers behind it get instead.
    """

    def __init__(self, quantized, reference, program, random):
        self.quantized, self.graph, self.random = quantized, reference.graph, random
        self.maps = program.lowered.maps
        self.job = job = program.lowered.job
        self.ops = [self.graph.op(operation.name) for operation in job.operations if not operation.part]
        self.kinds = {operation.name: operation.kind for operation in job.operations}
        self.values, self.given, self.expected, self.inputs = {}, {}, {}, {}
        for feature_map in job.inputs:
            self.values[id(feature_map)] = self._made(feature_map)
        self.ports = [self._value(feature_map.name) for feature_map in job.inputs]
        for op in self.ops:
            given = [self._value(name) for name in op.inputs["input"]]
            self.given[op.name] = given
            self.expected[op.name] = reference.run_op(op.name, given)
            reference.close()
            output = self.maps[op.name]
            # what only moves has no instruction behind which to change its output
            moves = KINDS[self.kinds[op.name]].engine == "none"
            made = self.expected[op.name] if moves else self._made(output)
            self.values[id(output)] = self.inputs[op.name] = made

    def _value(self, name):
        value = self.values[id(self._source(name))]
        return value.reshape(len(value), *self.graph.op(name).tensor.shape[1:])

    def _source(self, name):
        """The map whose bytes the op `name` gives."""
        return self.job.source(self.maps[name])

    def _made(self, feature_map):
        consumers = [
            op for op in self.ops if any(self._source(name) is feature_map for name in op.inputs["input"])
        ]
        readers = probes.readers_of(self.graph, self.quantized, consumers, feature_map.shape)
        return probes.layer_maps(self.quantized, feature_map.shape, readers, self.random)


class _Watch:
    """Compares every piece of every map as it is computed, and every map in DDR as it is whole.

    expected : op name -> int8 (N, H, W, C); replaced : the same, what is put in its place, or None.
    """

    def __init__(
        self,
        program: CompiledSubgraph,
        expected: Mapping[str, np.ndarray],
        replaced: Mapping[str, np.ndarray] | None = None,
    ):
        self.job = program.lowered.job
        self.order = [operation.name for operation in self.job.operations if not operation.part]
        self.maps = {name: program.lowered.maps[name] for name in self.order}
        self.whole = self.job.whole_by_name(self.maps)
        self.expected = {name: self._hwc(name, expected[name]) for name in self.order}
        self.final = self.expected
        if replaced is not None:
            self.final = {name: self._hwc(name, replaced[name]) for name in self.order}
        self.replace = replaced is not None
        self.seen = {name: np.zeros(self.maps[name].shape, bool) for name in self.order}
        self.wrong: Counter[str] = Counter()
        self.first: dict[str, tuple[int, int]] = {}

    def _hwc(self, name, array):
        return np.asarray(array, np.int8).reshape(len(array), *self.maps[name].shape)

    @property
    def values(self) -> int:
        """How many values of maps there are."""
        return sum(array.size for array in self.seen.values())

    def __call__(self, step: Step, memory: Memory, first: int) -> None:
        piece = self.job.pieces.get(step.index)
        if piece is not None:
            self._piece(piece, step, memory, first)
        for name in self.whole.get(step.index, ()):
            expected = self.final[name][first : first + memory.images]
            found = self.maps[name].view(memory.regions[self.maps[name].region])
            self._compare(name, found, expected)
            self.seen[name][:] = True

    def _piece(self, piece, step, memory, first):
        per_group, channels = memory.machine.channels, self.maps[piece.op].shape[2]
        start, end = piece.groups[0] * per_group, min(piece.groups[1] * per_group, channels)
        where = (*piece.where, slice(start, end))
        images = slice(first, first + memory.images)
        block = memory.image[step.outputs]  # [row, column, group, image, byte]
        rows, columns, groups, count, _ = block.shape
        data = block.transpose(3, 0, 1, 2, 4).reshape(count, rows, columns, groups * per_group)
        self._compare(piece.op, data[..., : end - start], self.expected[piece.op][(images, *where)])
        self.seen[piece.op][where] = True
        if self.replace:
            data[..., : end - start] = self.final[piece.op][(images, *where)]
            block = data.reshape(count, rows, columns, groups, per_group)
            memory.image[step.outputs] = block.transpose(1, 2, 3, 0, 4)

    def _compare(self, name, found, expected):
        differ = found != expected
        if differ.any():
            self.wrong[name] += int(differ.sum())
            place = np.argwhere(differ)[0]
            self.first.setdefault(name, (found[tuple(place)], expected[tuple(place)]))

    def finish(self, ports: Sequence[Port], outputs: Sequence[np.ndarray]) -> None:
        """DisagreementError at the first layer in order that differs or was not seen whole."""
        for name in self.order:
            if self.wrong[name]:
                found, expected = self.first[name]
                raise DisagreementError(
                    f"layer {name!r}: machine code and emulator differ on {self.wrong[name]} of"
                    f" {self.expected[name].size} values (the first is {found} instead of {expected})"
                )
            if not self.seen[name].all():
                raise DisagreementError(f"layer {name!r}: no instruction computes all of its output")
        for port, output in zip(ports, outputs, strict=True):
            source = next(m for m in self.job.outputs if m.address == port.address)
            name = next(name for name in self.order if self.maps[name] is source)
            if not np.array_equal(output.reshape(self.final[name].shape), self.final[name]):
                raise DisagreementError(
                    f"output {port.name!r}: the program does not write what {name!r} computed"
                )


def _branches(quantized, layer, images, made):
    """{"op", "reached", "not_reached"} of a layer.

    images, made : its inputs, of the network's images and the made ones. Taken a few at a time, and no more
    of them than it needs to reach all that is possible: sums of large maps cost most of a verification.
    """
    possible, reached = branches.possible(quantized, layer), set()
    at_once = max(1, AT_ONCE // sum(x[0].size for x in made))
    for given in _few_at_a_time(images, made, at_once):
        if reached == possible:
            break
        reached |= branches.reached(quantized, layer, given) & possible
    return {"op": layer.op, "reached": sorted(reached), "not_reached": sorted(possible - reached)}


def _few_at_a_time(images, made, count):
    """Those first that reach the most."""
    order = sorted(range(len(made[0])), key=lambda image: probes.MAP_KINDS[image] not in probes.TELLING)
    for batch, chosen in ((made, order), (images, range(len(images[0])))):
        for start in range(0, len(chosen), count):
            yield [x[list(chosen[start : start + count])] for x in batch]


def _record(layers, values, images, taken):
    reached = sum(len(layer["reached"]) for layer in layers.values())
    missed = {name: layer["not_reached"] for name, layer in layers.items() if layer["not_reached"]}
    total = reached + sum(map(len, missed.values()))
    how = (
        f"machine code on the instruction simulator, equal to the emulator bit for bit in all {len(layers)}"
        f" feature maps ({values} values each): on {images} images ({taken} of the calibration,"
        f" {images - taken} made), and layer by layer on {len(probes.MAP_KINDS)} made inputs each;"
        f" {reached} of {total} branches of the layers reached"
    )
    if missed:
        how += "; not reached: " + ", ".join(f"{name} {' and '.join(what)}" for name, what in missed.items())
    return {
        "how": how,
        "maps": len(layers),
        "values_per_image": values,
        "images": {"compared": images, "from_calibration": taken, "made": images - taken},
        "layer_inputs": list(probes.MAP_KINDS),
        "orders": "images in program order, layer by layer in another that the dependency masks allow",
        "branches": {"reached": reached, "possible": total},
        "layers": [{"layer": name, **layer} for name, layer in layers.items()],
    }
