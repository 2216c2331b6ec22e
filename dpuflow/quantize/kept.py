"""quantization.json and nodes.json of a network that somebody else quantized: its fix_points are kept."""

from typing import Any

from dpuflow.network import QuantizedNetwork

OUTPUT = "quantized_output"


def kept_report(quantized: QuantizedNetwork) -> tuple[dict[str, Any], dict[str, Any]]:
    """(content of quantization.json, content of nodes.json for the evaluation graph)."""
    network = quantized.network
    report = {
        "quantizer": "file",
        "settings": {},
        "input_scaling": dict(quantized.input_scaling),
        "nodes": {"input": network.input.name, "output": OUTPUT},
        "folding": [],
        "adjustments": [],
    }
    ends = {"input": (network.input.name, network.input.shape), "output": (OUTPUT, network.output.shape)}
    nodes: dict[str, Any] = {
        end: {"name": name, "tensor": f"{name}:0", "shape": [None, *shape], "dtype": "float32"}
        for end, (name, shape) in ends.items()
    }
    return report, nodes | {"variables": []}
