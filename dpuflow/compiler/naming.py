"""Names of ops, and the graph attributes that both forms of a compiled network share."""

from collections.abc import Iterable
from typing import Any

from dpuflow.network import QuantizedNetwork


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
    """Graph attributes: who wrote it, how pixels become the network's input, how many classes.

    float input = (pixel - input_subtract) / input_divide.
    """
    output = quantized.network.output
    return {
        "origin": "dpuflow",
        "input_subtract": float(quantized.input_scaling["subtract"]),
        "input_divide": float(quantized.input_scaling["divide"]),
        "class_count": int(output.shape[-1]),
    }
