"""Cross-layer equalization: scale channels between layers without changing the function.

Through ReLU and pooling a positive factor per channel commutes, so channel c of one
layer may be multiplied by s_c if the next layer's weights for c are divided by it
(Nagel et al. 2019, arXiv:1906.04721). `vendor_equalize` follows the vendor's frozen-graph
tool step by step (docs/reference/quantizers.md).
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from dpuflow.network import WEIGHTED, Layer, Network
from dpuflow.ops import kinds
from dpuflow.ops.arithmetic import activation_named
from dpuflow.ops.convolution import given

SWEEPS = 10
LIMITS = (0.01, 100.0)
THRESHOLD = 0.5
CEILINGS = {"RELU6": 6.0}
"""Activations that are linear between zero and an end."""
RESERVE = 4.0
"""How much larger than on the calibration pictures an output may be and still be left as it is: many channels
of a classifier's last layers answer to classes of which there is no picture among them."""
VENDORS_ENDS, VENDORS_WAY = ("conv", "depthwise_conv"), ("max_pool", "avg_pool")
"""Layers that the vendor's tool equalizes, and what may lie between them."""


def chains(
    network: Network, ends: Collection[str], through: Collection[str], also: Collection[str] = ()
) -> list[tuple[Layer, Layer]]:
    """Pairs (head, tail) of layers `ends` joined by single-reader steps `through`.

    also : names of heads whose activation does not commute with every scale.
    """
    pairs, outputs = [], network.output_layers
    for head in network.layers:
        if head.op not in ends:
            continue
        if head.name not in also and not activation_named(head.attrs["activation"]).commutes_with_scale:
            continue
        layer = head
        while True:
            if network.readers(layer.name) != 1 or layer.name in outputs:
                break
            layer = network.consumers(layer.name)[0]
            if layer.op in ends:
                pairs.append((head, layer))
            if not layer.operator.passes_positive_scale or layer.op not in through:
                break
    return pairs


def relu6_to_relu(network: Network) -> list[str]:
    """Replace ReLU6 by ReLU, in place, as the vendor does before equalizing. Returns the layers changed."""
    changed = [layer.name for layer in network.layers if layer.attrs.get("activation") == "RELU6"]
    for name in changed:
        network[name].attrs["activation"] = "RELU"
    return changed


def output_range(layer: Layer) -> np.ndarray:
    """Largest |weight|, bias included, per output channel."""
    weights = np.moveaxis(given(layer.weights), layer.operator.output_axis, 0)
    largest = _largest(weights.reshape(len(weights), -1), 1)
    return largest if layer.bias is None else np.maximum(largest, np.abs(layer.bias))


def input_range(layer: Layer, channels: int) -> np.ndarray:
    """Largest |weight| per input channel of the map in front: the last axis, channel fastest."""
    return _largest(given(layer.weights).reshape(-1, channels), 0)


def _largest(weights: np.ndarray, axis: int) -> np.ndarray:
    """Largest |weight| along an axis, without an array of all of them."""
    return np.maximum(np.abs(weights.max(axis=axis)), np.abs(weights.min(axis=axis)))


def scale_output(layer: Layer, factors: np.ndarray, own: bool = False) -> None:
    """Multiply the output channels of a weighted layer; own: whether its weights are nobody else's."""
    layer.weights = _product(given(layer.weights), layer.per_output_channel(factors), own)
    if layer.bias is not None:
        layer.bias = (layer.bias * factors).astype(np.float32)


def scale_input(layer: Layer, factors: np.ndarray, own: bool = False) -> None:
    """Multiply the weights that read each channel of the map in front: the last axis, channel fastest."""
    weights = given(layer.weights)
    times = weights.shape[-1] // len(factors)
    layer.weights = _product(weights, np.tile(factors, times), own)


def _product(weights: np.ndarray, factors: np.ndarray, own: bool) -> np.ndarray:
    """weights * factors as float32, in one array of that size at most: in place where they are one's own."""
    out = weights if own and weights.dtype == np.float32 else np.empty_like(weights, np.float32)
    return np.multiply(weights, factors, out=out, casting="same_kind")


def vendor_equalize(network: Network, sweeps: int = SWEEPS) -> list[dict[str, str]]:
    """The vendor's CLE, in place: conv to conv only, 10 sweeps, factors in [0.01, 100]."""
    relu6_to_relu(network)
    pairs = chains(network, VENDORS_ENDS, VENDORS_WAY)
    for _ in range(sweeps):
        for head, tail in pairs:
            out = output_range(head)
            into = input_range(tail, len(out))
            with np.errstate(divide="ignore", invalid="ignore"):
                factors = np.sqrt(into / out)
            factors = np.clip(np.nan_to_num(factors, nan=1.0, posinf=LIMITS[1]), *LIMITS)
            factors[out + into < THRESHOLD] = 1.0
            scale_output(head, factors)
            scale_input(tail, 1 / factors)
    return [{"head": head.name, "tail": tail.name} for head, tail in pairs]


def capped(network: Network) -> list[Layer]:
    """Weighted layers with a ReLU6: a scale passes it as long as 6 is not reached."""
    return [
        layer for layer in network.layers if layer.op in WEIGHTED and layer.attrs["activation"] in CEILINGS
    ]


def equalize(
    network: Network, sweeps: int = SWEEPS, peaks: Mapping[str, np.ndarray] | None = None
) -> list[dict[str, Any]]:
    """Cross-layer equalization in place, across every kind of weighted layer (dense behind flatten too).

    As `vendor_equalize` in its formula, but without the vendor's threshold, which leaves most
    small networks unchanged. A channel whose weights are all zero on either side keeps its scale.
    ReLU6 stays: a channel of `capped` layers is scaled as far as its peak does not come near 6.

    peaks : layer name -> largest output of each channel on the calibration pictures; None: layers with
        ReLU6 keep their scales.

    Returns [{"head", "tail", "smallest", "largest"}]: the pairs and the range of their channels'
    total factors.
    """
    ceilings = _ceilings(network, peaks or {})
    pairs = chains(network, WEIGHTED, kinds(lambda operator: operator.passes_positive_scale), ceilings)
    total = {(head.name, tail.name): np.ones_like(output_range(head)) for head, tail in pairs}
    own: set[str] = set()
    for _ in range(sweeps):
        for head, tail in pairs:
            key = head.name, tail.name
            out = output_range(head)
            into = input_range(tail, len(out))
            used = (out > 0) & (into > 0)
            factors = np.ones_like(out)
            factors[used] = np.clip(np.sqrt(into[used] / out[used]), *LIMITS)
            if head.name in ceilings:
                ceiling = ceilings[head.name]
                # a channel that does reach 6 keeps its scale: what lies above would no longer be cut off
                factors = np.where(ceiling > 1, np.minimum(factors, ceiling / total[key]), 1).astype(
                    out.dtype
                )
            scale_output(head, factors, head.name in own)
            scale_input(tail, 1 / factors, tail.name in own)
            own |= {head.name, tail.name}
            total[key] *= factors
    return [
        {"head": head, "tail": tail, "smallest": float(f.min()), "largest": float(f.max())}
        for (head, tail), f in total.items()
    ]


def _ceilings(network: Network, peaks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Layer name -> how far each channel may be scaled up in all; 1 where it keeps its scale."""
    found = {}
    for layer in capped(network):
        if layer.name in peaks:
            most = CEILINGS[layer.attrs["activation"]] / RESERVE
            peak = np.maximum(peaks[layer.name].astype(np.float64), most / LIMITS[1])
            found[layer.name] = np.maximum(most / peak, 1)
    return found
