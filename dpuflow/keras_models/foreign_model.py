"""Does a model from elsewhere fit the data set, and what to say when it does not."""

from collections.abc import Sequence
from pathlib import Path

from dpuflow.base.errors import UserError

OpenShape = Sequence[int | None]
"""A shape without the batch dimension; None for an open size."""


def check_fits(
    path: Path | str,
    inputs: Sequence[OpenShape],
    outputs: Sequence[OpenShape],
    image_shape: Sequence[int],
    classes: int,
) -> None:
    """Raise UserError unless the model has one input of `image_shape` and one output of `classes`.

    inputs, outputs : lists of shapes without the batch dimension; None for an open size.
    """
    for what, shapes, expected in (("input", inputs, tuple(image_shape)), ("output", outputs, (classes,))):
        if len(shapes) != 1:
            raise UserError(f"{path}: has {len(shapes)} {what}s; dpuflow takes models with one")
        shape = tuple(shapes[0])
        if len(shape) != len(expected) or any(
            a not in (None, b) for a, b in zip(shape, expected, strict=True)
        ):
            problem = input_mismatch(shape, expected) if what == "input" else output_mismatch(shape, classes)
            raise UserError(f"{path}: {problem}")


def input_mismatch(wanted: OpenShape, image_shape: Sequence[int]) -> str:
    """What to say when a network takes another shape than the data set's images have."""
    height, width, channels = image_shape
    have = f"the data set's images are {height}x{width} with {_channels(channels)}"
    if len(wanted) != 3:
        takes = f"the network takes inputs of the shape {wanted}"
        return f"{takes}, {have}; train it on images of this data set, or choose its data set"
    shown = ["any size" if n is None else n for n in wanted]
    takes = f"the network takes {shown[0]}x{shown[1]} images with {_channels(shown[2])}"
    if wanted[:2] == (None, None):
        takes = f"the network takes images of any size with {_channels(shown[2])}"
    settings = f"height: {shown[0]}, width: {shown[1]}, channels: {shown[2]}"
    return (
        f"{takes}, {have}; train the network for such images, or give it a data set of its own kind "
        f"(datasets.NAME.image: {{{settings}}} says how the rows of a CSV are read)"
    )


def _channels(count):
    kind = {1: " (grey)", 3: " (colour)"}.get(count, "")
    return f"{count} channel{'s' * (count != 1)}{kind}"


def output_mismatch(shape: OpenShape, classes: int) -> str:
    """What to say when a network answers in another shape than one value per class."""
    if shape == (1,):
        return (
            "has one output value, not one per class; one sigmoid is read for two classes, "
            f"the data set has {classes}"
        )
    return (
        f"its output has the shape {shape}, the data set has {classes} classes (datasets.NAME.class_names); "
        "train the network for these, or choose its data set"
    )
