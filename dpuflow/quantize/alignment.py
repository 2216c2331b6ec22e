"""Position constraints between tensors, and their repairs (docs/reference/quantizers.md).

Tensors between which the DPU only moves or compares bytes (max pooling, concatenation,
flatten) or average small windows form a group with one fix_point. Global average pooling
rescales, so its two sides are free of each other (docs/reference/numerics.md, "Pooling";
the vendor's TF2 tool leaves it out of the alignment, too).
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.numerics import INT8_MIN, quantize
from dpuflow.device.dpuczdx8g import (
    ADD_GUARD_BITS,
    RELU6_FIX_POINT,
    SHIFT_BIAS_RANGE,
    SHIFT_CUT_RANGE,
    SHIFT_READ_MAX,
    SHIFT_WRITE_RANGE,
    is_exact_add,
)
from dpuflow.network import WEIGHTED, Layer, Network
from dpuflow.ops.convolution import given
from dpuflow.ops.operator import NO_GRID
from dpuflow.quantize.fix_points import ANY_FIX_POINT, COARSEST, Change, FixPoints, Table, non_overflow
from dpuflow.quantize.gate_positions import fit_gates, require_gates

Pair = tuple[int, int]
"""(least, greatest)."""


def shares(network: Network, layer: Layer) -> bool:
    """Whether a layer's output must have its inputs' fix_point."""
    return layer.operator.shares_fix_point([network[name].shape for name in layer.inputs])


def _set(fix_points: FixPoints, name: str, fix_point: int, report: list[Change], why: str) -> bool:
    if fix_points[name] != fix_point:
        report.append({"tensor": name, "from": fix_points[name], "to": fix_point, "why": why})
        fix_points[name] = fix_point
        return True
    return False


def fix_point_groups(network: Network) -> list[list[str]]:
    """Lists of layer names that must share a fix_point, in topological order."""
    group: dict[str, list[str]] = {}
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
    unique = {id(members): sorted(members, key=order.__getitem__) for members in group.values()}
    return sorted(unique.values(), key=lambda members: order[members[0]])


def share_fix_points(network: Network, fix_points: FixPoints) -> list[Change]:
    """Give every group one fix_point, in place; returns the changes.

    A group takes the fix_point of its last tensor (behind pooling, which is what the next layer
    reads), with a concatenation the smallest of its members. A tensor that is all zero has no say.
    """
    report: list[Change] = []
    for members in fix_point_groups(network):
        joined = any(network[name].op == "concat" for name in members)
        fix_point = fix_points[members[-1]]
        if joined or fix_point == ANY_FIX_POINT:
            fix_point = min(fix_points[name] for name in members)
        for name in members:
            _set(fix_points, name, fix_point, report, f"shares its fix_point with {members[-1]}")
    return report


def place_silent(network: Network, fix_points: FixPoints) -> list[Change]:
    """Give every tensor that was zero on all calibration images a fix_point, in place; returns the changes.

    Nothing is known of its size, so it takes the coarsest one at which nothing can saturate: that of
    the largest value which the float layer may give, its inputs being what their fix_points hold.
    """
    report: list[Change] = []
    silent = {name for name, fix_point in fix_points.items() if fix_point == ANY_FIX_POINT}
    groups = {name: members for members in fix_point_groups(network) for name in members}
    changed = bool(silent)
    while changed:
        changed = False
        for layer in network.layers:
            if layer.name not in silent:
                continue
            fix_point = _coarse_enough(layer, [fix_points.get(name, NO_GRID) for name in layer.inputs])
            if fix_point < fix_points[layer.name]:
                changed = True
                for name in groups[layer.name]:
                    _set(fix_points, name, fix_point, report, "zero on all calibration images")
    return report


def _coarse_enough(layer: Layer, fixes: Sequence[int]) -> int:
    """Position at which a layer's output does not saturate, whatever its inputs are."""
    sizes = [float(np.ldexp(-INT8_MIN, -fix)) for fix in fixes]
    largest = layer.operator.largest(sizes, layer.weights, layer.bias)
    if largest is None or largest == 0:
        return min(fixes)
    fix_point = non_overflow(-largest, largest)
    # 6 fits there, and the DPU's clamp means it
    return max(fix_point, RELU6_FIX_POINT) if layer.attrs.get("activation") == "RELU6" else fix_point


def raise_relu6(network: Network, fix_points: FixPoints) -> list[Change]:
    """Give every group with a ReLU6 in it at least the fix_point at which the DPU's clamp means 6.0.

    In place; returns the changes. A ReLU6's own choice is never below (6.0 fits there), but a
    concatenation may ask for more range than that: for twice as much it saturates a little, beyond
    that it is refused (UserError).
    """
    report: list[Change] = []
    for members in fix_point_groups(network):
        clamped = [name for name in members if network[name].attrs.get("activation") == "RELU6"]
        if clamped and fix_points[clamped[0]] < RELU6_FIX_POINT:
            if fix_points[clamped[0]] < RELU6_FIX_POINT - 1:
                others = ", ".join(name for name in members if name not in clamped)
                raise UserError(
                    f"layer {clamped[0]!r}: its ReLU6 shares one scale with {others}, which reach "
                    f"{128 * 2.0 ** -fix_points[clamped[0]]:g}; the DPU's ReLU6 clamps at 6 only on a scale "
                    f"that ends at {128 / 2**RELU6_FIX_POINT:g}: use ReLU there"
                )
            why = f"below {RELU6_FIX_POINT} the DPU's ReLU6 ({clamped[0]}) clamps above 6"
            for name in members:
                _set(fix_points, name, RELU6_FIX_POINT, report, why)
    return report


def bound_adds(network: Network, fix_points: FixPoints) -> list[Change]:
    """Bring the inputs of additions close enough for the add instruction to be exact, in place.

    Only ever lowers fix_points (nothing saturates): the output, as far as it is more than a step above
    the coarsest input, then all but the coarsest inputs and one. Groups move as one, and a ReLU6 stays
    where its clamp means 6. Returns the changes; `is_exact_add` says what is exact.
    """
    report: list[Change] = []
    groups = {name: members for members in fix_point_groups(network) for name in members}
    adds = [layer for layer in network.layers if layer.op == "add"]
    while True:
        before = len(report)
        for layer in adds:
            _bound_add(layer, network, fix_points, groups, report)
        if len(report) == before:
            return report


def _bound_add(
    layer: Layer,
    network: Network,
    fix_points: FixPoints,
    groups: Mapping[str, list[str]],
    report: list[Change],
) -> None:
    def lower(name: str, fix_point: int, partly: bool = False) -> None:
        relu6 = any(network[member].attrs.get("activation") == "RELU6" for member in groups[name])
        if relu6 and partly:
            fix_point = max(fix_point, RELU6_FIX_POINT)
        fixed = [member for member in groups[name] if network[member].operator.fixed_output is not None]
        if fix_point < fix_points[name] and fixed:
            raise UserError(
                f"layer {layer.name!r}: adds {fixed[0]!r}, in steps of {2.0 ** -fix_points[name]:g}, "
                f"to values in steps of {2.0**-least:g}, which no instruction does exactly; weights or "
                "inputs are too large: check the input scaling, or train with weight decay"
            )
        if fix_point < fix_points[name] and not (relu6 and fix_point < RELU6_FIX_POINT):
            for member in groups[name]:
                _set(fix_points, member, fix_point, report, f"addition {layer.name} is exact so")

    def exact() -> bool:
        return is_exact_add([fix_points[name] for name in layer.inputs], fix_points[layer.name])

    finest_last = sorted(set(layer.inputs), key=lambda name: fix_points[name])
    least = fix_points[finest_last[0]]
    for name in finest_last:
        lower(name, least + SHIFT_READ_MAX)
    lower(layer.name, least - SHIFT_WRITE_RANGE[0], partly=True)
    if not exact():
        lower(layer.name, least + ADD_GUARD_BITS - 1, partly=True)  # finer than the sums tells nothing more
    for name in finest_last[1:]:
        if not exact():
            lower(name, least + ADD_GUARD_BITS)


def fit_shifts(network: Network, fix_points: FixPoints, weights: Table, biases: Table) -> list[Change]:
    """Bring shift_cut, shift_bias, additions and gates into their ranges, in place.

    Nothing saturates by it. shift_cut = fix_in + fix_w - fix_out, shift_bias = fix_in + fix_w - fix_bias.
    Only ever lowers fix_points: weights finer than the accumulator's 16 bits below output or bias, outputs
    finer than the accumulator's own unit (which lose nothing by it), biases finer than that. A ReLU6
    stays where its clamp means 6; there the weights are raised by one, as the vendor does, and beyond
    that the layer is refused (UserError), and so is what feeds a hard sigmoid coarser steps than it reads.
    Returns the changes.
    """
    report: list[Change] = []
    groups = {name: members for members in fix_point_groups(network) for name in members}
    layers = [layer for layer in network.layers if layer.op in WEIGHTED]
    while True:
        before = len(report)
        for layer in layers:
            _lower_weights(layer, fix_points, weights, biases, report)
            _lower_output(layer, network, fix_points, weights, groups, report)
        report += bound_adds(network, fix_points)
        _fit_gates(network, fix_points, groups, report)
        if len(report) == before:
            break
        _require_scales(fix_points, report[before:])
    for layer in layers:
        unit = fix_points[layer.inputs[0]] + weights[layer.name][1]
        if fix_points[layer.name] > unit - SHIFT_CUT_RANGE[0] + 1:
            raise UserError(
                f"layer {layer.name!r}: its ReLU6 reads sums in steps of {2.0**-unit:g}, too coarse for "
                f"values up to 6 in steps of {2.0**-RELU6_FIX_POINT:g}; its weights or inputs are too large: "
                "check the input scaling, or train with weight decay"
            )
    _require_adds(network, fix_points)
    require_gates(network, fix_points)
    # what is left: biases finer than the unit, and a step that a ReLU6 held up
    return report + repair_shifts(network, fix_points, weights, biases)


def _require_adds(network: Network, fix_points: FixPoints) -> None:
    """UserError where a ReLU6 holds up the output of an addition whose inputs are too coarse for it."""
    for layer in network.layers:
        if layer.op != "add" or not layer.operator.quantized:
            continue
        least = min(fix_points[name] for name in layer.inputs)
        if least - fix_points[layer.name] < SHIFT_WRITE_RANGE[0]:
            raise UserError(
                f"layer {layer.name!r}: adds values in steps of {2.0**-least:g}, too coarse for a ReLU6 of "
                f"values up to 6 in steps of {2.0 ** -fix_points[layer.name]:g}; weights or inputs are too "
                "large: check the input scaling, or train with weight decay"
            )


def _require_scales(fix_points: FixPoints, changes: list[Change]) -> None:
    """UserError where lowering finds no end: what is bound to share one scale never fits."""
    for change in changes:
        if fix_points.get(change["tensor"], 0) < COARSEST:
            raise UserError(
                f"layer {change['tensor']!r}: no scale fits it and the layers that share its scale "
                f"({change['why']}); its weights or inputs are too large: check the input scaling, train "
                "with weight decay, or do not join what is so unlike"
            )


def _fit_gates(
    network: Network, fix_points: FixPoints, groups: Mapping[str, list[str]], report: list[Change]
) -> None:
    def lower(name: str, fix_point: int, why: str) -> None:
        members = groups[name]
        relu6 = any(network[member].attrs.get("activation") == "RELU6" for member in members)
        fixed = any(network[member].operator.fixed_output is not None for member in members)
        if fix_point < fix_points[name] and not fixed and not (relu6 and fix_point < RELU6_FIX_POINT):
            for member in members:
                _set(fix_points, member, fix_point, report, why)

    fit_gates(network, fix_points, lower)


def _lower_weights(
    layer: Layer, fix_points: FixPoints, weights: Table, biases: Table, report: list[Change]
) -> None:
    fix_in, old = fix_points[layer.inputs[0]], weights[layer.name][1]
    bias = biases.get(layer.name, (None, ANY_FIX_POINT))[1]
    highest = fix_points[layer.name] + SHIFT_CUT_RANGE[1]
    if bias != ANY_FIX_POINT:
        highest = min(highest, bias + SHIFT_BIAS_RANGE[1])
    if old == ANY_FIX_POINT:  # all zero: any shift will do
        fix_point = min(fix_points[layer.name] + SHIFT_CUT_RANGE[0], highest) - fix_in
        weights[layer.name] = (np.zeros(given(layer.weights).shape, np.int8), fix_point)
    elif fix_in + old > highest:
        fix_point = highest - fix_in
        report.append(_change(f"{layer.name}/weights", old, fix_point, "finer than output or bias can tell"))
        weights[layer.name] = (quantize(given(layer.weights), fix_point, "STD_ROUND"), fix_point)


def _lower_output(
    layer: Layer,
    network: Network,
    fix_points: FixPoints,
    weights: Table,
    groups: Mapping[str, list[str]],
    report: list[Change],
) -> None:
    unit = fix_points[layer.inputs[0]] + weights[layer.name][1] - SHIFT_CUT_RANGE[0]
    relu6 = any(network[name].attrs.get("activation") == "RELU6" for name in groups[layer.name])
    unit = max(unit, RELU6_FIX_POINT) if relu6 else unit
    if fix_points[layer.name] > unit:
        for name in groups[layer.name]:
            _set(fix_points, name, unit, report, f"finer than the sums of {layer.name}")


def align_as_vendor(network: Network, fix_points: FixPoints) -> list[Change]:
    """The vendor's alignment, in place: concat inputs to the output, then pool inputs to the pool.

    One pass each, even where the second undoes the first, and average pooling included (which
    costs range in front of a global average). Returns the changes {"tensor", "from", "to", "why"}.
    """
    report: list[Change] = []
    for kind, name in (("concat", "concatenation"), ("pool", "pooling")):
        for layer in network.layers:
            if layer.operator.vendor_aligns == kind:
                for source in layer.inputs:
                    why = f"input of {name} {layer.name}"
                    _set(fix_points, source, fix_points[layer.name], report, why)
    for layer in network.layers:
        if layer.operator.renames:
            fix_points[layer.name] = fix_points[layer.inputs[0]]
    return report


def repair_shifts(
    network: Network,
    fix_points: FixPoints,
    weights: Table,
    biases: Table,
    cut_range: Pair = SHIFT_CUT_RANGE,
    bias_range: Pair | Callable[[int], Pair] = SHIFT_BIAS_RANGE,
) -> list[Change]:
    """Keep shift_cut and shift_bias in range by the vendor's repairs, in place.

    shift_cut = fix_in + fix_w - fix_out: the weights' fix_point moves. shift_bias =
    fix_in + fix_w - fix_bias: the bias's fix_point moves. int8 values are made anew.
    bias_range : (low, high) or a function of shift_cut. Returns the list of changes.
    """
    report: list[Change] = []
    for layer in network.layers:
        if layer.op not in WEIGHTED:
            continue
        fix_in, fix_out = fix_points[layer.inputs[0]], fix_points[layer.name]
        fix_weights = weights[layer.name][1]
        if fix_weights == ANY_FIX_POINT:  # all-zero weights: any shift will do
            fix_weights = fix_out - fix_in + cut_range[0]
            weights[layer.name] = (np.zeros(given(layer.weights).shape, np.int8), fix_weights)
        cut = fix_in + fix_weights - fix_out
        wanted = min(max(cut, cut_range[0]), cut_range[1])
        if wanted != cut:
            fix_point = fix_weights + wanted - cut
            report.append(_change(f"{layer.name}/weights", fix_weights, fix_point, f"shift_cut was {cut}"))
            weights[layer.name] = (quantize(given(layer.weights), fix_point, "STD_ROUND"), fix_point)
        if layer.name not in biases:
            continue
        fix_bias = biases[layer.name][1]
        low, high = bias_range(wanted) if callable(bias_range) else bias_range
        unit = fix_in + weights[layer.name][1]
        if fix_bias == ANY_FIX_POINT:
            biases[layer.name] = (np.zeros(given(layer.bias).shape, np.int8), unit - max(low, 0))
            continue
        shift = unit - fix_bias
        wanted = min(max(shift, low), high)
        if wanted != shift:
            fix_point = unit - wanted
            report.append(_change(f"{layer.name}/bias", fix_bias, fix_point, f"shift_bias was {shift}"))
            biases[layer.name] = (quantize(given(layer.bias), fix_point, "STD_ROUND"), fix_point)
    return report


def _change(tensor: str, old: int, new: int, why: str) -> Change:
    return {"tensor": tensor, "from": old, "to": new, "why": why}


def vendor_bias_range(shift_cut: int) -> Pair:
    """shift_bias limits of the vendor's quantizer: [min(0, -(24 - (8 + shift_cut))), 16]."""
    return min(0, -(24 - (8 + shift_cut))), 16
