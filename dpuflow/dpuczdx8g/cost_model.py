"""Estimate of latency, throughput and memory of a network on a target, before compiling; nothing is measured.

Compute cycles follow the parallelism of the engines (docs/reference/instruction-set.md, "theoretical
cycles of one CONV"), memory time the bytes and the instructions that a layer needs. What a byte, an
instruction and a call of the runtime cost stands in `timing`; `isa.cycles` reckons with the same numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod
from types import MappingProxyType
from typing import Any

from dpuflow.base.totality import Total
from dpuflow.compiler.workload import (
    ALU,
    CONVOLUTION,
    engine,
    layer_is_augmented,
    layer_window,
    layer_workload,
    map_shape,
)
from dpuflow.device.targets import Target
from dpuflow.dpuczdx8g.bounds import COMPUTE, INSTRUCTIONS, MEMORY
from dpuflow.dpuczdx8g.energy import assumption, energy
from dpuflow.dpuczdx8g.grouping import groups_read
from dpuflow.dpuczdx8g.pooling import max_pool_steps
from dpuflow.dpuczdx8g.residency import through_memory
from dpuflow.dpuczdx8g.timing import HOST, TIMING, Host, Timing, assumptions, figure, figures
from dpuflow.network import Layer, Network, QuantizedNetwork
from dpuflow.ops.convolution import Weighted
from dpuflow.ops.pooling import MaxPool


def estimate(
    network: Network | QuantizedNetwork, target: Target, timing: Timing = TIMING, host: Host = HOST
) -> dict[str, Any]:
    """The estimate as a dict for JSON, `"kind": "estimate"`, with its assumptions.

    network is a folded Network or a QuantizedNetwork; target a Target. Times are in
    microseconds, sizes in bytes, one frame per call.
    """
    part = _parts_read(network, target)
    if isinstance(network, QuantizedNetwork):
        network = network.network
    timing = timing.on(target.board)
    clock = timing.clock_mhz
    cores = target.board.cores if target.board else 1
    works = layer_works(network, target, timing.kept, part)
    times, shared = (layer_times(works, timing, n) for n in (1, cores))
    layers = [_row(work, cycles, timing) for work, cycles in zip(works, times, strict=True)]
    dpu_us = sum(times) / clock
    compute_us = sum(work.computing(timing) for work in works) / clock
    workload = sum(work.workload for work in works)
    computed = round(sum(work.workload * work.read for work in works))
    peak_per_us = target.peak_operations * clock
    board = figures(dpu_us, sum(shared) / clock, cores, *handed_over(network), host=host)
    used = energy(target, computed, board, dpu_us)
    taken = assumptions(target.board, timing, host)
    taken["notes"] += assumption(target)
    return {
        "kind": "estimate",
        "target": target.name,
        "dpu": target.dpu,
        "board": target.board.name if target.board else None,
        "clock_mhz": clock,
        "cores": cores,
        "assumptions": taken,
        **board,
        **({"energy": used} if used else {}),
        "dpu_us": figure(dpu_us),
        "compute_us": figure(compute_us),
        "memory_us": figure(sum(work.memory(timing) for work in works) / clock),
        "peak_operations": target.peak_operations,
        "workload": workload,
        "workload_on_arch": sum(work.workload_on_arch for work in works),
        "array_utilisation": figure(computed / (compute_us * peak_per_us) if compute_us else 0.0),
        "end_to_end_utilisation": figure(computed / (board["latency_us"] * peak_per_us)),
        "weight_bytes": sum(work.weight_bytes for work in works),
        "activation_bytes": activation_memory(network),
        "ddr_bytes": sum(row["ddr_bytes"] for row in layers),
        "layers": layers,
    }


def _parts_read(network: Network | QuantizedNetwork, target: Target) -> dict[str, float]:
    """Of convolutions in groups, by name, the part of its input's channels that each output reads."""
    held = {}
    if isinstance(network, QuantizedNetwork):
        held, network = network.weights, network.network
    parallel, parts = target.input_channel_parallel, {}
    for layer in network.layers:
        weights = held[layer.name][0] if layer.name in held else layer.weights
        if layer.op != "conv" or weights is None or tuple(layer.attrs["dilation"]) != (1, 1):
            continue
        entries = ceil(weights.shape[-1] / parallel)
        if entries > 1:
            read, _ = groups_read(weights.reshape(len(weights), -1, weights.shape[-1]), parallel)
            if read < entries:
                parts[layer.name] = read / entries
    return parts


def handed_over(network: Network) -> tuple[int, int, int]:
    """What a call of the runtime hands over for one frame: (bytes in, bytes out, number of outputs)."""
    outputs = network.last_quantized
    sizes = [sum(prod(layer.shape) for layer in layers) for layers in (network.inputs, outputs)]
    return sizes[0], sizes[1], len(outputs)


def layer_cycles(network: Network, layer: Layer, target: Target) -> int:
    """Cycles that the engine of `layer` works on one frame (0 for ops that compute nothing)."""
    return _CYCLES[engine(network, layer)](network, layer, target)


def _alu_cycles(network, layer, target):
    height, width, channels = map_shape(layer.shape)
    groups = ceil(channels / target.input_channel_parallel)
    at_once = target.alu_pixel_parallel
    steps = [((height, width), layer.attrs["kernel"] if "kernel" in layer.attrs else (1, len(layer.inputs)))]
    if isinstance(layer.operator, MaxPool):
        source, kernel = map_shape(network[layer.inputs[0]].shape)[:2], layer.attrs["kernel"][::-1]
        steps = max_pool_steps(source, (height, width), kernel, groups, at_once)
    return sum(ceil(rows / at_once) * columns * groups * prod(taps) for (rows, columns), taps in steps)


def _convolution_cycles(network, layer, target):
    height, width, channels = map_shape(layer.shape)
    kernel, in_channels = layer_window(network, layer, target)
    parallel = target.input_channel_parallel
    if layer_is_augmented(network, layer, target):
        steps = kernel[1] * ceil(kernel[0] * in_channels / parallel)
    else:
        steps = prod(kernel) * ceil(in_channels / parallel)
    rows = ceil(height / target.pixel_parallel)
    return rows * width * ceil(channels / target.output_channel_parallel) * steps


_CYCLES = Total(
    "dpuczdx8g.cost_model: cycles of an engine",
    (CONVOLUTION, ALU, None),
    {CONVOLUTION: _convolution_cycles, ALU: _alu_cycles, None: lambda *_: 0},
)


def parameter_bytes(network: Network, layer: Layer) -> int:
    """Bytes of int8 weights and bias of a layer."""
    operator = layer.operator
    if not isinstance(operator, Weighted):
        return 0
    shape = operator.weights_shape(network[layer.inputs[0]].shape, layer.shape)
    return prod(shape) + map_shape(layer.shape)[2]


def activation_memory(network: Network) -> int:
    """Greatest number of bytes of int8 feature maps alive at once (no layer fused into another)."""
    order = {layer.name: index for index, layer in enumerate(network.layers)}
    maps = [layer for layer in network.layers if layer.operator.quantized and not layer.operator.renames]
    spans = {layer.name: (order[layer.name], _last_read(network, layer.name, order)) for layer in maps}
    sizes = {layer.name: prod(layer.shape) for layer in maps}
    return max(
        sum(size for name, size in sizes.items() if spans[name][0] <= now <= spans[name][1])
        for now in order.values()
    )


def _last_read(network, name, order):
    """Index of the last layer that reads `name`, also through a flatten, which copies nothing."""
    last = order[name]
    for reader in network.consumers(name):
        through = _last_read(network, reader.name, order) if reader.op == "flatten" else order[reader.name]
        last = max(last, through)
    return last


def _source(network, name):
    while network[name].op == "flatten":
        name = network[name].inputs[0]
    return name


@dataclass(frozen=True)
class Work:
    """What a layer asks of the engines.

    Attributes
    ----------
    cycles : of its engine at one position of a kernel a cycle; windowed : whether the ALU counts as more.
    read : the part of its input's channels, and so of its weights, that is no zero between groups.
    weight_bytes, weight_loads : of its parameters, and the LOADs for them.
    loaded, loads, saved, saves : bytes and instructions of LOAD and of SAVE, parameters among them.
    """

    layer: Layer
    engine: str
    workload: int
    workload_on_arch: int
    cycles: int
    windowed: bool
    read: float
    utilisation: float
    weight_bytes: int
    weight_loads: int
    loaded: float
    loads: float
    saved: float
    saves: float

    def computing(self, timing: Timing) -> float:
        """Cycles of its engine."""
        return self.cycles * (timing.alu_cycles if self.windowed else 1.0)

    def moving(self, timing: Timing) -> list[float]:
        """Cycles of LOAD and of SAVE, one core at work."""
        pairs = ((self.loaded, self.loads), (self.saved, self.saves))
        return [_transfer(size, count, timing) for size, count in pairs]

    def loading_weights(self, timing: Timing) -> float:
        """Cycles of LOAD that wait for no map, one core at work."""
        return _transfer(self.weight_bytes * self.read, self.weight_loads, timing)

    def memory(self, timing: Timing) -> float:
        """Cycles of the longer of the two, which run side by side."""
        return max(self.moving(timing))

    def bound(self, timing: Timing) -> str:
        """What the layer's time is made of for the greatest part."""
        memory = self.memory(timing)
        if self.computing(timing) >= memory:
            return COMPUTE
        count = self.loads if memory == self.moving(timing)[0] else self.saves
        issued = _transfer(0, count, timing)
        return INSTRUCTIONS if issued > memory / 2 else MEMORY


def _transfer(size, count, timing):
    return (size / timing.bytes_per_cycle + count * timing.transfer_cycles) * timing.stretch(1)


def layer_works(
    network: Network, target: Target, kept: float, read: Mapping[str, float] = MappingProxyType({})
) -> list[Work]:
    """The work of every layer that an engine computes, in order.

    kept : as `Timing` has it. read : of convolutions in groups, by name, the part of their input's channels
    that each output reads.
    """
    moved = through_memory(network, target, kept)
    layers = [layer for layer in network.layers if engine(network, layer)]
    return [_work(network, layer, target, moved, read.get(layer.name, 1.0)) for layer in layers]


def _work(network, layer, target, moved, read):
    workload, on_arch = layer_workload(network, layer, target)
    cycles, unit = round(layer_cycles(network, layer, target) * read), engine(network, layer)
    # the vendor's count leaves out the second entry per pixel that some augmented layers take
    busy = max(on_arch, cycles * target.peak_operations) if unit == CONVOLUTION else on_arch
    windowed = unit == ALU and (layer.operator.weighted or "kernel" in layer.attrs)
    height, _, channels = map_shape(layer.shape)
    weights = parameter_bytes(network, layer)
    # a LOAD fills one row of a map, or the weights of one output channel; a depthwise layer's are one bank
    weight_loads = 1 + (channels if unit == CONVOLUTION else 1) if weights else 0
    sources = [network[name] for name in dict.fromkeys(_source(network, name) for name in layer.inputs)]
    part = moved[layer.name]
    return Work(
        layer,
        unit,
        workload,
        on_arch,
        cycles,
        windowed,
        read,
        workload / busy if busy else 0.0,
        weights,
        weight_loads,
        weights * read + sum(moved[x.name] * prod(x.shape) for x in sources),
        weight_loads + sum(moved[x.name] * map_shape(x.shape)[0] for x in sources),
        part * prod(layer.shape),
        part * height,
    )


def layer_times(works: Sequence[Work], timing: Timing, cores: int) -> list[float]:
    """Cycles that each layer adds to a frame's, less what overlaps with the one before; `cores` at work."""
    times, before, idle, unit = [], 0.0, 0.0, None
    stretch = timing.stretch(cores) / timing.stretch(1)
    for work in works:
        computing, moving = work.computing(timing), work.memory(timing) * stretch
        # weights come while the layer before computes and moves nothing
        early = min(idle, max(0.0, moving - computing), work.loading_weights(timing) * stretch)
        idle, moving = max(0.0, computing - moving), moving - early
        alone = max(computing, moving) + timing.exposed * min(computing, moving)
        hidden = timing.overlap * min(alone, before) if unit not in (None, work.engine) else 0.0
        before, unit = alone - hidden, work.engine
        times.append(before)
    return times


def _row(work, cycles, timing):
    clock = timing.clock_mhz
    return {
        "name": work.layer.name,
        "op": work.layer.op,
        "engine": work.engine,
        "workload": work.workload,
        "workload_on_arch": work.workload_on_arch,
        "cycles": work.cycles,
        "utilisation": figure(work.utilisation),
        "weight_bytes": work.weight_bytes,
        "ddr_bytes": round(work.loaded + work.saved),
        "transfers": round(work.loads + work.saves),
        "compute_us": figure(work.computing(timing) / clock),
        "memory_us": figure(work.memory(timing) / clock),
        "time_us": figure(cycles / clock),
        "bound": work.bound(timing),
    }
