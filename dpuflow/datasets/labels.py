"""Class labels: which integers occur in a dataset and what they are called.

Sign Language MNIST counts letters A=0 .. Y=24 and leaves out 9 (J needs motion, as
does Z), so the network has 25 outputs and 24 real classes. A table of 24 names
indexed by label would be off by one from K on (docs/reference/tutorial.md, "Defects not repeated"):
here the names are a list indexed by label, with a name in every place.
"""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpuflow.base.errors import UserError

MAX_LABEL = 255
"""Labels are uint8 in the CSV reader."""
MAX_PICTURE_LABEL = 65535
"""dataset.h5 holds uint16 at most."""


@dataclass(frozen=True)
class Labels:
    """Names of the network's outputs, and which of them occur.

    Attributes
    ----------
    names : one name per output, indexed by label.
    present : the labels that occur, ascending.
    """

    names: tuple[str, ...]
    present: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names):
            raise UserError("class names must be unique: " + ", ".join(self.names))
        if not self.present or not set(self.present) <= set(range(len(self.names))):
            raise UserError(f"labels {list(self.present)} do not fit {len(self.names)} class names")

    @property
    def outputs(self) -> int:
        """Width of the network's output: one more than the largest possible label."""
        return len(self.names)

    def name(self, label: int) -> str:
        """The name of `label` (an int in 0..outputs-1)."""
        return self.names[label]


def sign_mnist_labels() -> Labels:
    """A..Y as 0..24, without 9."""
    names = tuple(string.ascii_uppercase[:25])
    return Labels(names, tuple(label for label in range(25) if label != 9))


def labels_of(
    classes: Sequence[str | None] | Mapping[Any, str | None] | None, most: int = MAX_LABEL
) -> Labels:
    """The Labels that a dataset entry's `class_names` asks for.

    classes : None for the letters of Sign Language MNIST; a list of names (name i is
        label i; None marks a label that does not occur, its place kept); or a
        mapping label -> name with gaps allowed. most : the largest label allowed.
    """
    if classes is None:
        return sign_mnist_labels()
    table = dict(enumerate(classes)) if isinstance(classes, list | tuple) else _integer_keys(classes)
    if not table:
        raise UserError("class_names: expected at least one class name")
    highest = max(table)
    if min(table) < 0 or highest > most:
        raise UserError(f"class_names: labels must lie in 0..{most}, found {min(table)}..{highest}")
    present = tuple(sorted(label for label, name in table.items() if name is not None))
    names = tuple(str(table[i]) if table.get(i) is not None else f"absent {i}" for i in range(highest + 1))
    return Labels(names, present)


def _integer_keys(classes):
    try:
        return {int(label): name for label, name in dict(classes).items()}
    except (TypeError, ValueError):
        raise UserError(
            f"class_names: expected a list of names or label: name pairs, found {classes!r}"
        ) from None
