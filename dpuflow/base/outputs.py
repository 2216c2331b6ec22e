"""A network's outputs by name, the same at every stage from training to the board.

A stage (the trained file in its own runtime, the frozen graph, the quantized one, the emulated board) is a
function of pictures that gives every output in real numbers. Nothing downstream of it knows how it computes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from dpuflow.base.errors import UserError

ONLY = "output"
"""What the output of a network with one is called; of several each has a name of its own."""

NONE = "none"
"""`models.NAME.output` of a network of which no output is the class of a picture."""

Shapes = dict[str, tuple[int, ...]]
"""Output's name -> its shape without the batch, in order."""


class Stage(Protocol):
    """A network as one stage of the chain has it."""

    @property
    def shapes(self) -> Shapes:
        """Of the outputs; maps are (H, W, C), whatever the stage's own order of axes."""

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """{output's name: float32 (N, *shape)} of uint8 pictures (N, H, W, C), any number of them."""


def node_entry(name: str, shape: Sequence[int]) -> dict[str, Any]:
    """A node of a graph as nodes.json has it; shape : behind the batch."""
    return {"name": name, "tensor": f"{name}:0", "shape": [None, *shape], "dtype": "float32"}


def ends_of(entries: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The part of nodes.json that tells of outputs, of {output's name: entry}."""
    return {"output": next(iter(entries.values()))} if len(entries) == 1 else {"outputs": dict(entries)}


def named_ends(nodes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Output's name -> its entry in the content of a nodes.json, in order."""
    return dict(nodes["outputs"]) if "outputs" in nodes else {ONLY: nodes["output"]}


def only_end(nodes: Mapping[str, Any], who: str) -> dict[str, Any]:
    """The entry of the only output; UserError where there are several, which `who` cannot take."""
    ends = named_ends(nodes)
    if len(ends) != 1:
        raise UserError(f"{who} takes networks with one output; this one has {len(ends)}: {', '.join(ends)}")
    return next(iter(ends.values()))


def answer_of(shapes: Mapping[str, Sequence[int | None]], wanted: str | None, where: Any) -> str | None:
    """Which output is the class of a picture, or None where none is.

    wanted : `models.NAME.output`: an output's name, NONE, or None where it is not given. where : the file,
    for messages. UserError where only the user can say.
    """
    if wanted == NONE:
        return None
    listed = ", ".join(f"{name!r} {list(shape)}" for name, shape in shapes.items())
    if wanted is None:
        if len(shapes) == 1:
            return next(iter(shapes))
        raise UserError(
            f"{where}: has {len(shapes)} outputs: {listed}; say with models.NAME.output which one is the "
            f"class of a picture, or {NONE}"
        )
    if wanted not in shapes:
        raise UserError(f"{where}: no output is called {wanted!r} (models.NAME.output); it has {listed}")
    return wanted
