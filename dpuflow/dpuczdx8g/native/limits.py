"""Which layers the compiler `native` has no code for, known from their shapes: before any training.

The DPU's own limits (`compiler.target_check`), and what this compiler adds to them. They are asked
of the tiling itself, so that this answer and the compilation cannot differ. There is no rule by operator:
what an operator is (a window, a sum, a concatenation) says which limits it has. An operator that has no
code at all is refused by `lowering`.
"""

from dataclasses import replace

from dpuflow.compiler import target_check
from dpuflow.compiler.target_check import Finding
from dpuflow.compiler.workload import CONVOLUTION, engine, map_shape
from dpuflow.device.targets import Target
from dpuflow.dpuczdx8g.isa.machine import BANK_DEPTH, machine_for
from dpuflow.dpuczdx8g.native.operations import FeatureMap, Operation
from dpuflow.dpuczdx8g.native.tiling import CHANNEL_GROUPS, TooLargeError, channel_slices, tiles
from dpuflow.dpuczdx8g.native.transposed import skips
from dpuflow.network import Network, QuantizedNetwork
from dpuflow.network.dilation import smaller_kernel
from dpuflow.ops.gating import HardSigmoid
from dpuflow.ops.joining import Concat
from dpuflow.ops.operator import Window
from dpuflow.ops.transposed import Transposed

MOST_ADDED = 4
"""Operands of the add instruction."""
MOST_MOVED = 4096
"""Channels of a load or save, whatever the DPU's size (12 bits)."""


def check(network: Network | QuantizedNetwork, target: Target) -> list[Finding]:
    """Findings of a Network or QuantizedNetwork for a Target and this compiler, in layer order.

    Dilated kernels are judged as the compiler runs them: without taps that read padding alone, in phases or
    written out (`network.dilation`).
    """
    if isinstance(network, QuantizedNetwork):
        network = network.network
    layers = [
        smaller_kernel(layer, map_shape(network[layer.inputs[0]].shape)) if layer.inputs else layer
        for layer in network.layers
    ]
    network = replace(network, layers=layers)
    kept = in_phases(network, target)
    layers = [layer if layer.name in kept else _written_out(layer) for layer in network.layers]
    network = replace(network, layers=layers)
    found: dict[str, list[Finding]] = {}
    for finding in target_check.check(network, target):
        found.setdefault(finding.layer, []).append(finding)
    machine = machine_for(target.fingerprint, f"target {target.name}")
    findings: list[Finding] = []
    for layer in network.layers:
        findings += found.get(layer.name) or _own(network, layer, machine)
    return findings


def in_phases(network: Network, target: Target) -> set[str]:
    """Names of the dilated convolutions that run in phases; the others are written out with zeros."""
    found = set()
    for layer in network.layers:
        dilation = tuple(layer.attrs.get("dilation", (1, 1)))
        if dilation != (1, 1):
            source = map_shape(network[layer.inputs[0]].shape)
            if skips(layer, source) and max(dilation) * source[2] <= target.limits.channels:
                found.add(layer.name)
    return found


def _written_out(layer):
    """The layer with the kernel that its dilation spans; its weights are left as they are."""
    dilation = layer.attrs.get("dilation", (1, 1))
    if tuple(dilation) == (1, 1):
        return layer
    kernel = tuple((k - 1) * step + 1 for k, step in zip(layer.attrs["kernel"], dilation, strict=True))
    return replace(layer, attrs={**layer.attrs, "kernel": kernel, "dilation": (1, 1)})


def _own(network, layer, machine):
    """Findings of this compiler about a layer that the DPU can run."""
    operator = layer.operator
    if not operator.quantized:
        return []  # the CPU's, of any size
    if isinstance(operator, Concat):
        return _concat(network, layer)
    if isinstance(operator, Transposed) or tuple(layer.attrs.get("dilation", (1, 1))) != (1, 1):
        return []  # every phase is a small convolution, which `target_check` has judged
    if isinstance(operator, Window):
        return _window(network, layer, machine)
    if isinstance(operator, HardSigmoid) and map_shape(layer.shape)[2] > MOST_MOVED:
        channels, reason = map_shape(layer.shape)[2], "channels that one instruction moves"
        return [_finding(layer, "channels", channels, f"at most {MOST_MOVED}", reason, "use fewer channels")]
    return _sum(layer, machine) if len(layer.inputs) > 1 else []


def _sum(layer, machine):
    channels, most = map_shape(layer.shape)[2], CHANNEL_GROUPS * machine.channels
    if len(layer.inputs) > MOST_ADDED:
        reason, remedy = "operands of the add instruction", "add in two steps"
        return [_finding(layer, "inputs", len(layer.inputs), f"at most {MOST_ADDED}", reason, remedy)]
    if channels > most:
        reason = f"channel counters reach {CHANNEL_GROUPS} groups of {machine.channels}"
        return [_finding(layer, "channels", channels, f"at most {most}", reason, "use fewer channels")]
    return []


def _window(network, layer, machine):
    attrs = layer.attrs
    for index, side in enumerate(("left", "right", "top", "bottom")):
        value, most = attrs["pad"][index], attrs["kernel"][index // 2] - 1
        if value > most:
            reason = "a window that lies in the padding alone is not supported"
            return [_finding(layer, f"padding {side}", value, f"0 to {most}", reason, "pad less")]
    (width, height), channels = attrs["kernel"], map_shape(network[layer.inputs[0]].shape)[2]
    source = FeatureMap(layer.inputs[0], map_shape(network[layer.inputs[0]].shape))
    left, _, top, _ = attrs["pad"]
    geometry = {"kernel": (height, width), "stride": tuple(attrs["stride"][::-1]), "pad": (top, left)}
    output = FeatureMap(layer.name, map_shape(layer.shape))
    # one kind stands for all of its engine: tiles go by the window alone
    kind = "conv" if engine(network, layer) == CONVOLUTION else "depthwise"
    operation = Operation(layer.name, kind, [source], output, **geometry)
    try:
        tiles(channel_slices(operation, machine)[0], machine, BANK_DEPTH, BANK_DEPTH, 1)
    except TooLargeError:
        return [
            _finding(
                layer,
                "window",
                f"{width}x{height} on {channels} channels",
                f"{BANK_DEPTH} entries in each of {machine.pixels} banks",
                "what one output pixel reads must fit an image group",
                "use a smaller kernel, or several in a row",
            )
        ]
    return []


def _concat(network, layer):
    axis = layer.attrs["axis"]
    if len(layer.shape) == 1 or axis in (3, -1):
        largest = max(map_shape(network[name].shape)[2] for name in layer.inputs)
        if largest <= MOST_MOVED:
            return []
        reason, remedy = "one instruction moves no more of a pixel", "join the maps before they are flattened"
        return [_finding(layer, "channels of a part", largest, f"at most {MOST_MOVED}", reason, remedy)]
    return [_finding(layer, "axis", axis, "3 (channels)", "this compiler joins channels", "join channels")]


def _finding(layer, limit, value, allowed, reason, remedy):
    return Finding(layer.name, layer.op, limit, value, allowed, reason, remedy)
