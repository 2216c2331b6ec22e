"""quantization.json and nodes.json of a network that somebody else quantized: its fix_points are kept."""

from typing import Any

from dpuflow.base.outputs import ends_of, node_entry
from dpuflow.network import QuantizedNetwork

OUTPUT = "quantized_output"


def kept_report(quantized: QuantizedNetwork) -> tuple[dict[str, Any], dict[str, Any]]:
    """(content of quantization.json, content of nodes.json for the evaluation graph)."""
    network = quantized.network
    layers = network.outputs
    names = (
        {name: f"{OUTPUT}/{name}" for name in layers} if len(layers) > 1 else dict.fromkeys(layers, OUTPUT)
    )
    ends = {"input": network.input.name, "output": next(iter(names.values()))}
    report = {
        "quantizer": "file",
        "settings": {},
        "input_scaling": dict(quantized.input_scaling),
        "nodes": ends | ({"outputs": names} if len(names) > 1 else {}),
        "folding": [],
        "adjustments": [],
    }
    outputs = {name: node_entry(names[name], layer.shape) for name, layer in layers.items()}
    nodes = {"input": node_entry(network.input.name, network.input.shape), **ends_of(outputs)}
    return report, nodes | {"variables": []}
