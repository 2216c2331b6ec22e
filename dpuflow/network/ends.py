"""A network's outputs under the names that they have at every stage."""

from dpuflow.base.outputs import ONLY
from dpuflow.network import Layer, Network


def named_layers(network: Network) -> dict[str, Layer]:
    """Output's name (`base.outputs`) -> the layer that gives it."""
    outputs = network.outputs
    return outputs if len(outputs) > 1 else {ONLY: next(iter(outputs.values()))}
