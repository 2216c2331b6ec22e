"""Position constraints between tensors, and the vendor's repairs (facts quantizers.md A3).

Order as in the vendor's frozen-graph tool: concatenation, pooling, shift_cut, shift_bias.
Outside `compat: vai_q` concatenation and pooling repeat until nothing changes, because
the DPU moves bytes there: both sides must carry the same position.
"""

import numpy as np

from dpuflow.network import WEIGHTED
from dpuflow.numerics import SHIFT_BIAS_RANGE, SHIFT_CUT_RANGE, quantize
from dpuflow.quantize.positions import ANY_POSITION


def _set(positions, name, position, report, why):
    if positions[name] != position:
        report.append({"tensor": name, "from": positions[name], "to": position, "why": why})
        positions[name] = position
        return True
    return False


def align_activations(network, positions, compat=False):
    """Align concat inputs to the concat's output and pool inputs to the pool's output, in place.

    compat : one pass each, as the vendor's tool, even where the second pass undoes the first.
    Returns the list of changes {"tensor", "from", "to", "why"}.
    """
    report = []
    changed = True
    while changed:
        changed = False
        for layer in network.layers:
            if layer.op == "concat":
                for name in layer.inputs:
                    why = f"input of concatenation {layer.name}"
                    changed |= _set_through(network, positions, name, positions[layer.name], report, why)
        for layer in network.layers:
            if layer.op in ("max_pool", "avg_pool"):
                why = f"input of pooling {layer.name}"
                position = positions[layer.name]
                changed |= _set_through(network, positions, layer.inputs[0], position, report, why, compat)
        if compat:
            break
        changed = _lower_conflicts(network, positions, report) or changed
    for layer in network.layers:
        if layer.op == "flatten":
            positions[layer.name] = positions[layer.inputs[0]]
    return report


def _set_through(network, positions, name, position, report, why, compat=False):
    """Set a tensor's position; outside compat a change of a pool or concat pulls its inputs along later."""
    if not compat and network[name].op == "input":
        return False  # the input's position belongs to the caller; conflicts are settled by lowering
    return _set(positions, name, position, report, why)


def _lower_conflicts(network, positions, report):
    """Where a tensor feeds several aligned readers that disagree, all take the smallest position."""
    changed = False
    for layer in network.layers:
        if layer.op in ("max_pool", "avg_pool", "concat"):
            names = [layer.name, *layer.inputs]
            smallest = min(positions[name] for name in names)
            for name in names:
                changed |= _set(positions, name, smallest, report, f"shares its position with {layer.name}")
    return changed


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
