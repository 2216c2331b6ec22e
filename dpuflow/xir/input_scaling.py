"""How pixels become the network's input, as attributes of an xmodel's graph.

input_subtract, input_divide and, where the quantizer made one, input_gain: a number, or one for each
channel of the picture; then the attribute is called input_subtract_each, and so on, because XIR reads an
attribute by its exact type. input_order is there where it is not the picture's. `base.pixels` says what
the figures mean.
"""

from typing import Any

from dpuflow.base.errors import UserError
from dpuflow.base.pixels import Scaling
from dpuflow.xir.graph import Graph

FIGURES = ("subtract", "divide", "gain")


def scaling_attributes(scaling: Scaling) -> dict[str, Any]:
    """Attributes of the graph for an input scaling."""
    attributes: dict[str, Any] = {}
    for key in FIGURES:
        value = scaling.get(key)
        if isinstance(value, list | tuple):
            attributes[f"input_{key}_each"] = [float(n) for n in value]
        elif value is not None:
            attributes[f"input_{key}"] = float(value)
    if "order" in scaling:
        attributes["input_order"] = scaling["order"]
    return attributes


def recorded_scaling(graph: Graph) -> dict[str, Any] | None:
    """The input scaling that a graph records; None when it records none."""
    scaling: dict[str, Any] = {}
    for key in FIGURES:
        if f"input_{key}_each" in graph.attrs:
            scaling[key] = list(graph.attrs[f"input_{key}_each"])
        elif f"input_{key}" in graph.attrs:
            scaling[key] = float(graph.attrs[f"input_{key}"])
    if "input_order" in graph.attrs:
        scaling["order"] = graph.attrs["input_order"]
    return scaling if {"subtract", "divide"} <= scaling.keys() else None


def agreed_scaling(graph: Graph, given: Scaling | None, source: object) -> dict[str, Any]:
    """The scaling that a file records, or the one that the configuration gives for it (models.NAME.input).

    UserError when there is neither, or both and they differ.
    """
    recorded = recorded_scaling(graph)
    if recorded is None:
        if given is None:
            raise UserError(
                f"{source}: does not say how pixels become its input; write that as models.NAME.input, "
                "{subtract: ..., divide: ...}, as the network was trained"
            )
        return dict(given)
    differ = [key for key in given or {} if _figures(recorded.get(key)) != _figures((given or {})[key])]
    if differ:
        raise UserError(
            f"{source}: records the input scaling {recorded}, models.NAME.input says {dict(given or {})}; "
            "leave input out, or write what is recorded"
        )
    return recorded


def _figures(value):
    return [float(n) for n in value] if isinstance(value, list | tuple) else value
