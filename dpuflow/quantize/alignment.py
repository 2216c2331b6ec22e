"""Position constraints between tensors, and their repairs (docs/reference/quantizers.md).

Tensors between which the DPU only moves or compares bytes (max pooling, concatenation,
flatten) or average small windows form a group with one position. Global average pooling
rescales, so its two sides are free of each other (docs/reference/numerics.md, "Pooling";
the vendor's TF2 tool leaves it out of the alignment, too).
"""

import numpy as np

from dpuflow.base.numerics import (
    ADD_GUARD_BITS,
    RELU6_FIX_POINT,
    SHIFT_BIAS_RANGE,
    SHIFT_CUT_RANGE,
    SHIFT_READ_MAX,
    is_exact_add,
    quantize,
)
from dpuflow.network import WEIGHTED
from dpuflow.quantize.positions import ANY_POSITION


def shares(network, layer):
    """Whether a layer's output must have its inputs' position."""
    return layer.operator.shares_fix_point([network[name].shape for name in layer.inputs])


def _set(positions, name, position, report, why):
    if positions[name] != position:
        report.append({"tensor": name, "from": positions[name], "to": position, "why": why})
        positions[name] = position
        return True
    return False


def position_groups(network):
    """Lists of layer names that must share a position, in topological order."""
    group = {}
    for layer in network.layers:
        if not layer.operator.quantized:
            continue
        group[layer.name] = [layer.name]
        if shares(network, layer):
            for name in layer.inputs:
                if group[name] is not group[layer.name]:
                    merged = group[name] + group[layer.name]
                    for member in merged:
                        group[member] = merged
    order = {layer.name: i for i, layer in enumerate(network.layers)}
    unique = {id(members): sorted(members, key=order.get) for members in group.values()}
    return sorted(unique.values(), key=lambda members: order[members[0]])


def share_positions(network, positions):
    """Give every group one position, in place; returns the changes.

    A group takes the position of its last tensor (behind pooling, which is what the next layer
    reads), with a concatenation the smallest of its members.
    """
    report = []
    for members in position_groups(network):
        joined = any(network[name].op == "concat" for name in members)
        position = min(positions[name] for name in members) if joined else positions[members[-1]]
        for name in members:
            _set(positions, name, position, report, f"shares its position with {members[-1]}")
    return report


def raise_relu6(network, positions):
    """Give every group with a ReLU6 in it at least the position at which the DPU's clamp means 6.0.

    In place; returns the changes. A ReLU6's own choice is never below (6.0 fits there), but a
    concatenation may ask for less range than that.
    """
    report = []
    for members in position_groups(network):
        clamped = [name for name in members if network[name].attrs.get("activation") == "RELU6"]
        if clamped and positions[clamped[0]] < RELU6_FIX_POINT:
            why = f"below {RELU6_FIX_POINT} the DPU's ReLU6 ({clamped[0]}) clamps above 6"
            for name in members:
                _set(positions, name, RELU6_FIX_POINT, report, why)
    return report


def bound_adds(network, positions):
    """Bring the inputs of additions close enough for the add instruction to be exact, in place.

    Only ever lowers positions (nothing saturates): the output, as far as it is more than a step above
    the coarsest input, then all but the coarsest inputs and one. Groups move as one, and a ReLU6 stays
    where its clamp means 6. Returns the changes; `numerics.is_exact_add` says what is exact.
    """
    report, groups = [], {name: members for members in position_groups(network) for name in members}
    adds = [layer for layer in network.layers if layer.op == "add"]
    while True:
        before = len(report)
        for layer in adds:
            _bound_add(layer, network, positions, groups, report)
        if len(report) == before:
            return report


def _bound_add(layer, network, positions, groups, report):
    def lower(name, position):
        relu6 = any(network[member].attrs.get("activation") == "RELU6" for member in groups[name])
        if position < positions[name] and not (relu6 and position < RELU6_FIX_POINT):
            for member in groups[name]:
                _set(positions, member, position, report, f"addition {layer.name} is exact so")

    def exact():
        return is_exact_add([positions[name] for name in layer.inputs], positions[layer.name])

    finest_last = sorted(set(layer.inputs), key=lambda name: positions[name])
    least = positions[finest_last[0]]
    for name in finest_last:
        lower(name, least + SHIFT_READ_MAX)
    if not exact():
        lower(layer.name, least + ADD_GUARD_BITS - 1)
    for name in finest_last[1:]:
        if not exact():
            lower(name, least + ADD_GUARD_BITS)


def align_as_vendor(network, positions):
    """The vendor's alignment, in place: concat inputs to the output, then pool inputs to the pool.

    One pass each, even where the second undoes the first, and average pooling included (which
    costs range in front of a global average). Returns the changes {"tensor", "from", "to", "why"}.
    """
    report = []
    for kind, name in (("concat", "concatenation"), ("pool", "pooling")):
        for layer in network.layers:
            if layer.operator.vendor_aligns == kind:
                for source in layer.inputs:
                    why = f"input of {name} {layer.name}"
                    _set(positions, source, positions[layer.name], report, why)
    for layer in network.layers:
        if layer.operator.renames:
            positions[layer.name] = positions[layer.inputs[0]]
    return report


def repair_shifts(
    network, positions, weights, biases, cut_range=SHIFT_CUT_RANGE, bias_range=SHIFT_BIAS_RANGE
):
    """Keep shift_cut and shift_bias in range by the vendor's repairs, in place.

    shift_cut = fix_in + fix_w - fix_out: the weights' position moves. shift_bias =
    fix_in + fix_w - fix_bias: the bias's position moves. int8 values are made anew.
    bias_range : (low, high) or a function of shift_cut. Returns the list of changes.
    """
    report = []
    for layer in network.layers:
        if layer.op not in WEIGHTED:
            continue
        fix_in, fix_out = positions[layer.inputs[0]], positions[layer.name]
        fix_weights = weights[layer.name][1]
        if fix_weights == ANY_POSITION:  # all-zero weights: any shift will do
            fix_weights = fix_out - fix_in + cut_range[0]
            weights[layer.name] = (np.zeros(layer.weights.shape, np.int8), fix_weights)
        cut = fix_in + fix_weights - fix_out
        wanted = min(max(cut, cut_range[0]), cut_range[1])
        if wanted != cut:
            position = fix_weights + wanted - cut
            report.append(_change(f"{layer.name}/weights", fix_weights, position, f"shift_cut was {cut}"))
            weights[layer.name] = (quantize(layer.weights, position, "STD_ROUND"), position)
        if layer.name not in biases:
            continue
        fix_bias = biases[layer.name][1]
        low, high = bias_range(wanted) if callable(bias_range) else bias_range
        unit = fix_in + weights[layer.name][1]
        if fix_bias == ANY_POSITION:
            biases[layer.name] = (np.zeros(layer.bias.shape, np.int8), unit - max(low, 0))
            continue
        shift = unit - fix_bias
        wanted = min(max(shift, low), high)
        if wanted != shift:
            position = unit - wanted
            report.append(_change(f"{layer.name}/bias", fix_bias, position, f"shift_bias was {shift}"))
            biases[layer.name] = (quantize(layer.bias, position, "STD_ROUND"), position)
    return report


def _change(tensor, old, new, why):
    return {"tensor": tensor, "from": old, "to": new, "why": why}


def vendor_bias_range(shift_cut):
    """shift_bias limits of the vendor's quantizer: [min(0, -(24 - (8 + shift_cut))), 16]."""
    return min(0, -(24 - (8 + shift_cut))), 16
