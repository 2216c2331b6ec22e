"""Does a model from elsewhere fit the data set, and what to say when it does not."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from dpuflow.base.errors import UserError
from dpuflow.base.outputs import answer_of

OpenShape = Sequence[int | None]
"""A shape without the batch dimension; None for an open size."""


def check_fits(
    path: Path | str,
    inputs: Sequence[OpenShape],
    outputs: Mapping[str, OpenShape],
    image_shape: Sequence[int],
    classes: int,
    answer: str | None = None,
) -> None:
    """Raise UserError unless the model has one input of `image_shape` and says the class as it should.

    inputs : shapes without the batch dimension; None for an open size. outputs : {output's name: shape}.
    answer : `models.NAME.output`, as for `base.outputs.answer_of`; that output has one value for each class.
    """
    if len(inputs) != 1:
        raise UserError(f"{path}: {several_inputs(len(inputs))}")
    if not _equal(inputs[0], image_shape):
        raise UserError(f"{path}: {input_mismatch(tuple(inputs[0]), image_shape)}")
    check_answer(path, outputs, classes, answer)


def check_answer(
    path: Path | str, outputs: Mapping[str, OpenShape], classes: int, answer: str | None
) -> str | None:
    """Name of the output that is the class of a picture, or None; UserError where it cannot be that."""
    name = answer_of(outputs, answer, path)
    if name is not None and not _equal(outputs[name], (classes,)):
        of = f"output {name!r}: " if len(outputs) > 1 else ""
        raise UserError(f"{path}: {of}{output_mismatch(tuple(outputs[name]), classes)}")
    return name


def several_inputs(count: int) -> str:
    """What to say of a network with several inputs: a data set has one picture for each label."""
    return (
        f"has {count} inputs; the workflow takes networks with one, the pictures: a data set has nothing for "
        "the others. As a library dpuflow takes several, {input's name: arrays}: "
        "quantize.reference.quantize, compiler.reference.lower, emulator.Emulator (docs/emulator.md)"
    )


def _equal(shape, expected):
    return len(shape) == len(expected) and all(a in (None, b) for a, b in zip(shape, expected, strict=True))


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
    more = len(shape) == 1 and (shape[0] or 0) > classes
    empty = " a class folder without pictures counts only if class_names has it;" if more else ""
    return (
        f"its output has the shape {shape}, the data set has {classes} classes (datasets.NAME.class_names);"
        f"{empty} train the network for these, or choose its data set; if it is no class, say "
        "models.NAME.output: none"
    )
