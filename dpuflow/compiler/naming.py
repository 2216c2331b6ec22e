"""Names of ops, and the graph attributes that both forms of a compiled network share."""

from collections.abc import Iterable
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
    output = quantized.network.output
    return {
        "origin": "dpuflow",
        **scaling_attributes(quantized.input_scaling),
        "class_count": int(output.shape[-1]),
    }
