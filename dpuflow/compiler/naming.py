"""Names of ops, and the graph attributes that both forms of a compiled network share."""

from collections.abc import Iterable, Mapping
from typing import Any

from dpuflow.network import QuantizedNetwork
from dpuflow.xir.input_scaling import scaling_attributes


class Names:
    """Unique names: the reserved ones (layer names) are used as they are, others give way to them."""

    def __init__(self, reserved: Iterable[str]) -> None:
        self._used = set(reserved)

    def unique(self, name: str) -> str:
        """`name`, or `name_1`, `name_2`, ... when it is taken; never the same twice."""
        candidate, number = name, 0
        while candidate in self._used:
            number += 1
            candidate = f"{name}_{number}"
        self._used.add(candidate)
        return candidate


def input_attributes(quantized: QuantizedNetwork) -> dict[str, Any]:
    """Graph attributes: who wrote it, how pixels become the network's input, how many classes."""
    outputs = list(quantized.network.outputs.values())
    attributes = {
        "origin": "dpuflow",
        **scaling_attributes(quantized.input_scaling),
    }
    return attributes | ({"class_count": int(outputs[0].shape[-1])} if len(outputs) == 1 else {})


def output_attributes(quantized: QuantizedNetwork, ops: Mapping[str, str]) -> dict[str, Any]:
    """Graph attributes of a network's ends: which ops give its outputs, and their names where there are
    several.

    ops : output's name -> name of its op.
    """
    attributes: dict[str, Any] = {"return_ops": list(ops.values())}
    return attributes | ({"output_names": list(ops)} if len(ops) > 1 else {})
