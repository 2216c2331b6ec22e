"""Estimate of latency, throughput and memory of a network on a target. Nothing here is measured.

Compute cycles follow the parallelism of the engines (docs/reference/instruction-set.md, "theoretical
cycles of one CONV"), memory time the bytes that a layer moves, and a call of the
runtime costs a fixed time, which dominates for small networks (docs/reference/targets.md:
2.4 us of computation in a call of 267 us). The defaults of `Assumptions` are fitted to
the published figures that tests/compiler/test_cost_model.py lists. Those were taken
with whole applications and lie between 1 and 2.3 times the estimate: it is the
optimistic end.
"""

from dataclasses import asdict, dataclass
from itertools import pairwise
from math import ceil, prod
from typing import Any

from dpuflow.base.totality import Total
from dpuflow.compiler.workload import (
    ALU,
    CONVOLUTION,
    engine,
    factors_anew,
    layer_is_augmented,
    layer_window,
    layer_workload,
    map_shape,
    round_up,
)
from dpuflow.device.targets import Target
from dpuflow.network import Layer, Network, QuantizedNetwork
from dpuflow.ops.convolution import Weighted


@dataclass(frozen=True)
class Assumptions:
    """What the estimate takes for granted; every field may be set by the user.

    bandwidth_gb_s : bytes that one core moves from and to DDR, in 1e9 bytes per second,
        assumed from one published network (see the module's docstring).
    call_overhead_us : runtime, driver and interrupt per call of a runner.
    serial_overhead_us : the part of it that threads cannot overlap.
    threads : application threads for the board's frames per second.
    default_clock_mhz : clock of a target without a board.
    """

    bandwidth_gb_s: float = 6.0
    call_overhead_us: float = 260.0
    serial_overhead_us: float = 160.0
    threads: int = 4
    default_clock_mhz: float = 300.0


def estimate(
    network: Network | QuantizedNetwork, target: Target, assumptions: Assumptions | None = None
) -> dict[str, Any]:
    """The estimate as a dict for JSON, `"kind": "estimate"`, with its assumptions.

    network is a folded Network or a QuantizedNetwork; target a Target. Times are in
    microseconds, sizes in bytes, one frame per call.
    """
    if isinstance(network, QuantizedNetwork):
        network = network.network
    assumptions = assumptions or Assumptions()
    clock = target.board.clock_mhz if target.board else assumptions.default_clock_mhz
    cores = target.board.cores if target.board else 1
    on_chip = _kept_on_chip(network, target)
    layers = [
        _layer(network, layer, target, clock, assumptions, on_chip)
        for layer in network.layers
        if engine(network, layer)
    ]
    dpu_us = sum(row["time_us"] for row in layers)
    compute_us = sum(row["compute_us"] for row in layers)
    workload = sum(row["workload"] for row in layers)
    latency_us = assumptions.call_overhead_us + dpu_us
    board_fps = min(
        cores * 1e6 / dpu_us if dpu_us else float("inf"),
        assumptions.threads * 1e6 / latency_us,
        1e6 / assumptions.serial_overhead_us,
    )
    peak_per_us = target.peak_operations * clock
    return {
        "kind": "estimate",
        "target": target.name,
        "dpu": target.dpu,
        "board": target.board.name if target.board else None,
        "clock_mhz": clock,
        "cores": cores,
        "assumptions": _describe(assumptions, target),
        "latency_us": _figure(latency_us),
        "dpu_us": _figure(dpu_us),
        "compute_us": _figure(compute_us),
        "memory_us": _figure(sum(row["memory_us"] for row in layers)),
        "overhead_us": assumptions.call_overhead_us,
        "frames_per_second": {
            "one_thread": _figure(1e6 / latency_us),
            "one_core_saturated": _figure(1e6 / dpu_us if dpu_us else 0.0),
            "board": _figure(board_fps),
        },
        "workload": workload,
        "workload_on_arch": sum(row["workload_on_arch"] for row in layers),
        "array_utilisation": _figure(workload / (compute_us * peak_per_us) if compute_us else 0.0),
        "end_to_end_utilisation": _figure(workload / (latency_us * peak_per_us)),
        "weight_bytes": sum(row["weight_bytes"] for row in layers),
        "activation_bytes": activation_memory(network),
        "ddr_bytes": sum(row["ddr_bytes"] for row in layers),
        "layers": [
            {key: _figure(v) if isinstance(v, float) else v for key, v in row.items()} for row in layers
        ],
    }


def layer_cycles(network: Network, layer: Layer, target: Target) -> int:
    """Cycles that the engine of `layer` works on one frame (0 for ops that compute nothing)."""
    return _CYCLES[engine(network, layer)](network, layer, target)


def _alu_cycles(network, layer, target):
    height, width, channels = map_shape(layer.shape)
    groups = ceil(channels / target.input_channel_parallel)
    taps = prod(layer.attrs["kernel"]) if "kernel" in layer.attrs else len(layer.inputs)
    return ceil(height / target.alu_pixel_parallel) * width * groups * taps


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


def _stored(shape, target):
    """Bytes that a map takes in the image banks: channels padded to whole entries."""
    height, width, channels = map_shape(shape)
    return height * width * round_up(channels, target.input_channel_parallel)


def _kept_on_chip(network, target):
    """Names of maps that never leave the chip.

    Assumed: a map stays when its only reader is the next computing layer, which reads it in its
    own shape, and both that layer's maps fit one bank group each.
    """
    room = target.banks["image"].size
    computing = [layer for layer in network.layers if layer.op != "flatten"]
    kept = set()
    for layer, following in pairwise(computing):
        readers = network.consumers(layer.name)
        while len(readers) == 1 and readers[0].op == "flatten":
            readers = network.consumers(readers[0].name)
        fits = max(_stored(layer.shape, target), _stored(following.shape, target)) <= room
        if not engine(network, following) or factors_anew(network, following, target):
            continue
        if layer.op != "input" and readers == [following] and fits:
            kept.add(layer.name)
    return kept


def _source(network, name):
    while network[name].op == "flatten":
        name = network[name].inputs[0]
    return name


def _layer(network, layer, target, clock, assumptions, on_chip):
    workload, on_arch = layer_workload(network, layer, target)
    cycles = layer_cycles(network, layer, target)
    # the vendor's count leaves out the second entry per pixel that some augmented layers take
    busy = max(on_arch, cycles * target.peak_operations) if engine(network, layer) == CONVOLUTION else on_arch
    weights = parameter_bytes(network, layer)
    sources = {_source(network, name) for name in layer.inputs}
    loaded = sum(prod(network[name].shape) for name in sources if name not in on_chip)
    saved = 0 if layer.name in on_chip else prod(layer.shape)
    ddr = weights + loaded + saved
    compute_us = cycles / clock
    memory_us = ddr / (assumptions.bandwidth_gb_s * 1e3)
    return {
        "name": layer.name,
        "op": layer.op,
        "engine": engine(network, layer),
        "workload": workload,
        "workload_on_arch": on_arch,
        "cycles": cycles,
        "utilisation": workload / busy if busy else 0.0,
        "weight_bytes": weights,
        "ddr_bytes": ddr,
        "compute_us": compute_us,
        "memory_us": memory_us,
        "time_us": max(compute_us, memory_us),
        "bound": "compute" if compute_us >= memory_us else "memory",
    }


def _describe(assumptions, target):
    """The assumptions as numbers and as sentences for a report."""
    clock = (
        f"{target.board.clock_mhz:g} MHz"
        if target.board
        else f"{assumptions.default_clock_mhz:g} MHz assumed"
    )
    return {
        **asdict(assumptions),
        "notes": [
            f"clock {clock}; all engines busy every cycle of their work",
            "a layer takes the longer of its compute and its DDR time; layers follow one another",
            "weights are read once per frame; a map stays on chip when it and the next one fit a bank group",
            "call overhead and bandwidth are fitted to published figures, not measured here;"
            " published applications took 1 to 2.3 times the estimate",
            "the CPU's part (softmax, input quantization) is within the call overhead",
        ],
    }


def _figure(value):
    """Four significant digits: an estimate has no more."""
    return float(f"{value:.4g}")
