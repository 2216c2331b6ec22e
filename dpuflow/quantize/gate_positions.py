"""FixPoints that gates ask for: a hard sigmoid has one, its input, averages and products have ranges.

All but `hold_gates` only ever lower fix_points, so nothing saturates by it.
"""

from collections.abc import Callable, Collection

from dpuflow.base.errors import UserError
from dpuflow.device.dpuczdx8g import HARD_SIGMOID_INPUT_RANGE, PRODUCT_SHIFT_RANGE
from dpuflow.network import Layer, Network
from dpuflow.quantize.fix_points import COARSEST, Change, FixPoints

Lower = Callable[[str, int, str], None]
"""Function(layer, fix_point, why) that lowers a tensor's group to at most a fix_point where it may."""


def hold_gates(network: Network, groups: list[list[str]], fix_points: FixPoints) -> list[Change]:
    """Give what has but one fix_point that one, and a hard sigmoid's input no negative one, in place.

    groups : `alignment.fix_point_groups`. What shares a fixed fix_point takes it, too; where that reaches
    far beyond 1 it is refused (UserError). Returns the changes.
    """
    report: list[Change] = []

    def move(members: list[str], fix_point: int, why: str) -> None:
        for name in members:
            if fix_points[name] != fix_point:
                report.append({"tensor": name, "from": fix_points[name], "to": fix_point, "why": why})
                fix_points[name] = fix_point

    for members in groups:
        fixed = [name for name in members if network[name].operator.fixed_output is not None]
        if not fixed:
            continue
        wanted = network[fixed[0]].operator.fixed_output
        assert wanted is not None
        least = min(fix_points[name] for name in members)
        if least < wanted - 1:
            others = ", ".join(name for name in members if name not in fixed)
            raise UserError(
                f"layer {fixed[0]!r}: a hard sigmoid (values up to 1) shares one scale with {others}, which "
                f"reach {128 * 2.0**-least:g}; the DPU has it at fix_point {wanted} only: do not join the two"
            )
        move(members, wanted, f"the only fix_point of {fixed[0]} on the DPU")
    least = HARD_SIGMOID_INPUT_RANGE[0]
    for layer in _of_kind(network, "hard_sigmoid"):
        source = layer.inputs[0]
        members = next(members for members in groups if source in members)
        if fix_points[source] >= least:
            continue
        if {reader.name for name in members for reader in network.consumers(name)} - {layer.name, *members}:
            raise UserError(
                f"layer {source!r}: its values reach {128 * 2.0 ** -fix_points[source]:g}, but the hard "
                f"sigmoid {layer.name!r} reads up to {128 * 2.0**-least:g} only, and others read them, too; "
                "its weights or inputs are too large: check the input scaling, or train with weight decay"
            )
        move(members, least, f"{layer.name} reads no coarser one; beyond 3 it is flat")
    return report


def fit_gates(network: Network, fix_points: FixPoints, lower: Lower) -> None:
    """Bring hard sigmoids' inputs, products and averages into their ranges by `lower`ing fix_points."""
    for layer in _of_kind(network, "avg_pool"):
        found = layer.operator.shifts([fix_points[layer.inputs[0]]], fix_points[layer.name])
        for value, (least, _) in found.values():
            if value < least:  # a squeeze of what averages out
                why = "as fine as the average's shift can make it"
                lower(layer.name, fix_points[layer.name] + value - least, why)
    for layer in _of_kind(network, "hard_sigmoid"):
        lower(layer.inputs[0], HARD_SIGMOID_INPUT_RANGE[1], f"{layer.name} reads no finer one")
    least, greatest = PRODUCT_SHIFT_RANGE
    for layer in _of_kind(network, "multiply"):
        for name in sorted(set(layer.inputs), key=lambda name: -fix_points[name]):
            over = sum(fix_points[n] for n in layer.inputs) - fix_points[layer.name] - greatest
            if over > 0:
                lower(name, fix_points[name] - over, f"{layer.name} cuts at most {greatest} bits")
        total = sum(fix_points[name] for name in layer.inputs)
        lower(layer.name, total - least, f"finer than the products of {layer.name}")


def least_read(network: Network, members: Collection[str]) -> int:
    """The least fix_point that the hard sigmoids among the readers of some layers can read."""
    gated = any(reader.op == "hard_sigmoid" for name in members for reader in network.consumers(name))
    return HARD_SIGMOID_INPUT_RANGE[0] if gated else COARSEST


def require_gates(network: Network, fix_points: FixPoints) -> None:
    """UserError for a hard sigmoid that reads coarser steps than the instruction can."""
    least = HARD_SIGMOID_INPUT_RANGE[0]
    for layer in _of_kind(network, "hard_sigmoid"):
        source = layer.inputs[0]
        if fix_points[source] < least:
            raise UserError(
                f"layer {source!r}: its values come in steps of {2.0 ** -fix_points[source]:g}, and the hard "
                f"sigmoid {layer.name!r} reads steps of at most {2.0**-least:g}; its weights or inputs are "
                "too large: check the input scaling, or train with weight decay"
            )


def _of_kind(network: Network, kind: str) -> list[Layer]:
    return [layer for layer in network.layers if layer.op == kind]
