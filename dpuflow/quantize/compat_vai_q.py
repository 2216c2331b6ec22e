"""`compat: vai_q`: the fix_points of the vendor's frozen-graph quantizer (vai_q_tensorflow), reproduced.

Same rounding, candidates, vote per batch, equalization and order of refinement (
docs/reference/quantizers.md). What it chooses may break rules that this project's own
methods keep: concatenation inputs may differ from the output, shift_bias may be negative.
"""

from dpuflow.network import Network
from dpuflow.quantize import alignment, blocks, calibration
from dpuflow.quantize.calibration import Votes
from dpuflow.quantize.equalization import vendor_equalize
from dpuflow.quantize.fix_points import Change, FixPoints, Table
from dpuflow.quantize.gate_positions import hold_gates


def choose_fix_points(
    network: Network, images: blocks.Batch, method: str, batch: int, equalize: bool = False
) -> tuple[FixPoints, Table, Table, Votes, list[Change]]:
    """FixPoints and parameters as vai_q_tensorflow would choose them.

    Parameters
    ----------
    network : folded Network; changed in place when `equalize` is set.
    images : float32 (N, H, W, C) network input, in calibration order.
    method : "non_overflow" (the tool's method 0) or "min_diffs" (method 1).
    batch : images per calibration step.
    equalize : the tool's do_cle.

    Returns
    -------
    (fix_points, weights, biases, votes, adjustments)
    """
    if equalize:
        vendor_equalize(network)
    weights, biases = calibration.quantize_parameters(network, method)
    fix_points, votes = calibration.vote(network, weights, biases, images, method, batch)
    adjustments = alignment.align_as_vendor(network, fix_points)
    adjustments += alignment.place_silent(network, fix_points)
    adjustments += hold_gates(network, alignment.fix_point_groups(network), fix_points)
    adjustments += alignment.repair_shifts(
        network, fix_points, weights, biases, bias_range=alignment.vendor_bias_range
    )
    return fix_points, weights, biases, votes, adjustments
