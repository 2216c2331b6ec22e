"""Channels of the input that are divided by different numbers, on the one int8 grid that a DPU's input has.

The input has one fix_point, so its step is the same for all channels and its range that of the widest. Where
convolutions alone read the input, each channel is brought to the full range by a gain of its own, which the
weights for that channel undo: exact in real numbers, also where padding adds zeros.
"""

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.numerics import INT8_MAX
from dpuflow.base.pixels import Scaling, network_gain
from dpuflow.network import Network
from dpuflow.quantize.folding import Note

LEAST_LEVELS = 32
"""Of the 256 values of a channel, so many are to stay apart on the grid of the widest."""
READERS = ("conv", "depthwise_conv")
"""Kinds of layers whose weights count the channels of their input along the last axis."""


def one_grid(
    network: Network, notes: list[Note], scaling: Scaling, change: bool = True
) -> tuple[Network, Scaling, list[Note]]:
    """(network, scaling, notes): with a gain for each channel where the channels are divided differently.

    network : a folded one; it is changed in place. notes : of the folding, which get one more for each
    changed layer. change : False where the network is to stay as it is.

    UserError where a channel would keep too little of its values on the grid of the others.
    """
    divide = scaling["divide"]
    if not isinstance(divide, list | tuple) or len(set(divide)) == 1:
        return network, scaling, notes
    readers = network.consumers(network.input.name)
    spans = [max(s, 255 - s) for s in np.broadcast_to(scaling["subtract"], (len(divide),)).tolist()]
    if not change or any(layer.op not in READERS or _channels(layer) != len(divide) for layer in readers):
        _require_levels(divide, spans, [f"{layer.name} ({layer.op})" for layer in readers], change)
        return network, scaling, notes
    largest = max(spans) * (INT8_MAX + 1) / INT8_MAX
    scaling = {**scaling, "gain": [float(d) / largest for d in divide]}
    gain = network_gain(scaling)
    for layer in readers:
        assert layer.weights is not None  # as its operator says
        layer.weights = (layer.weights / gain).astype(np.float32)
    name = network.input.name
    how = "what divides each channel of the input folded into the weights"
    return network, scaling, [*notes, *({"layer": name, "into": r.name, "how": how} for r in readers)]


def _channels(layer):
    return layer.weights.shape[-1]


def _require_levels(divide, spans, readers, change):
    reach = [span / d for span, d in zip(spans, divide, strict=True)]
    levels = [255 / d / max(reach) * (INT8_MAX + 1) for d in divide]
    worst = int(np.argmin(levels))
    if levels[worst] < LEAST_LEVELS:
        why = f"{', '.join(readers)} reads the input" if change else "compat: vai_q changes no network"
        raise UserError(
            f"models.NAME.input.divide: {[float(d) for d in divide]} do not fit the one int8 grid of a DPU's "
            f"input: on the grid that channel {int(np.argmax(reach))} needs, channel {worst} keeps "
            f"{max(1, round(levels[worst]))} of its 256 values (at least {LEAST_LEVELS} wanted). They "
            f"fold into convolutions only, but {why}: begin the network with a convolution, or "
            "divide all channels alike"
        )
