"""What a detector or a segmentation finds in a user's own pictures: a table and a page."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
from markupsafe import Markup

from dpuflow.base.totality import Total
from dpuflow.datasets.dataset_file import Dataset
from dpuflow.datasets.picture_files import Picture
from dpuflow.datasets.placement import Placement, placement
from dpuflow.predict.answers import SHOWN, thumbnail
from dpuflow.report.found_masks import colour_of, overlaid
from dpuflow.report.images import data_uri
from dpuflow.report.page import render
from dpuflow.report.svg import drawing, element
from dpuflow.task import detection, segmentation
from dpuflow.task.boxes import Answer, boxes_csv
from dpuflow.task.tasks import TASKS

LABELLED = 40
"""Boxes of a picture with their names beside them; of more the names are shown when pointed at."""
COLOURS = 8
"""Colours of classes in the page; a class beyond them has the colour of an earlier one."""


class Finder(Protocol):
    """Gathers what is found in pictures, batch by batch."""

    threshold: float | None
    """Score from which on a box is shown; None where there are no boxes."""

    def add(self, outputs: Mapping[str, np.ndarray]) -> None:
        """The outputs (N, ...) of the next pictures."""

    def csv(self, names: Sequence[str], pictures: Sequence[Picture]) -> str:
        """CSV text of all that was found."""

    def card(self, picture: Picture, index: int) -> dict[str, Any]:
        """What the page shows of a picture: drawn, and words."""

    def words(self, picture: Picture, index: int) -> list[str]:
        """What was found in a picture, in short."""


class Boxes:
    """The boxes of a detector."""

    def __init__(self, dataset: Dataset, shapes: Any, decode: Mapping[str, Any] | None, where: Any) -> None:
        self.dataset, self.threshold = dataset, detection.shown_from(decode)
        self.decode = detection.decoder(dataset, shapes, decode, where)
        self.answers: list[Answer] = []

    def add(self, outputs: Mapping[str, np.ndarray]) -> None:
        """The outputs (N, ...) of the next pictures."""
        self.answers += [Answer(*found).above(self.threshold) for found in self.decode(dict(outputs))]

    def csv(self, names: Sequence[str], pictures: Sequence[Picture]) -> str:
        """A row for each box, its corners in pixels of the original."""
        found = (
            (name, self.answers[index], self._corners(picture, index))
            for index, (name, picture) in enumerate(zip(names, pictures, strict=True))
        )
        return boxes_csv(found, self.dataset.class_names, digits=6)

    def _corners(self, picture, index):
        return placed(self.dataset, picture).to_original(self.answers[index].boxes)

    def card(self, picture: Picture, index: int) -> dict[str, Any]:
        """The original with its boxes, and how many of which class."""
        answer, names = self.answers[index], self.dataset.class_names
        width, height = picture.size
        parts = [element("image", href=thumbnail(picture.original), x=0, y=0, width=width, height=height)]
        size = max(width, height) / 34
        for box, score, kind in zip(
            self._corners(picture, index), answer.scores, answer.classes, strict=True
        ):
            x1, y1, x2, y2 = box.tolist()
            words = f"{names[kind]} {score:.2f}"
            inner = [element("rect", element("title", words), x=x1, y=y1, width=x2 - x1, height=y2 - y1)]
            if len(answer.boxes) <= LABELLED:
                place = {"x": x1 + size / 5, "y": max(y1 - size / 4, size * 0.9), "font_size": size}
                inner.append(element("text", words, **place))
            parts.append(element("g", *inner, class_=f"of-class class-{kind % COLOURS}"))
        drawn = drawing(width, height, f"{len(answer.boxes)} boxes", parts, class_="found")
        return {"drawn": drawn, "words": self.words(picture, index)}

    def words(self, picture: Picture, index: int) -> list[str]:
        """How many of which class."""
        names = self.dataset.class_names
        counts = np.bincount(self.answers[index].classes, minlength=len(names))
        found = [f"{count} × {name}" for name, count in zip(names, counts, strict=True) if count]
        return found or ["nothing found"]


class Masks:
    """The classes of pixels of a segmentation."""

    def __init__(self, dataset: Dataset, shapes: Any, decode: Mapping[str, Any] | None, where: Any) -> None:
        self.dataset, self.where, self.threshold = dataset, where, None
        self.answer = segmentation.answer_map(dataset, shapes, decode, where)
        self.answers: list[np.ndarray] = []

    def add(self, outputs: Mapping[str, np.ndarray]) -> None:
        """The outputs (N, ...) of the next pictures."""
        size = self.dataset.shape[0], self.dataset.shape[1]
        self.answers += list(self.answer.of(outputs, size, self.where))

    def _of_original(self, picture, index):
        """The part of a mask that the picture fills."""
        left, top, right, bottom = placed(self.dataset, picture).place
        return self.answers[index][top:bottom, left:right]

    def _shares(self, picture, index):
        mask = self._of_original(picture, index)
        return np.bincount(mask.ravel(), minlength=len(self.dataset.class_names)) / mask.size

    def csv(self, names: Sequence[str], pictures: Sequence[Picture]) -> str:
        """A row for each picture and class that was found in it: its share of the pixels."""
        rows = [
            (name, self.dataset.class_names[kind], float(share))
            for index, (name, picture) in enumerate(zip(names, pictures, strict=True))
            for kind, share in enumerate(self._shares(picture, index))
            if share
        ]
        table = pd.DataFrame(rows, columns=["image", "class", "share"])
        return table.to_csv(index=False, lineterminator="\n", float_format="%.6g")

    def card(self, picture: Picture, index: int) -> dict[str, Any]:
        """The original under the colours of its mask, and the share of each class."""
        place, mask = placed(self.dataset, picture), self._of_original(picture, index)
        box = place.part
        scale = picture.original.width / picture.size[0], picture.original.height / picture.size[1]
        part = picture.original.crop(
            (
                round(box[0] * scale[0]),
                round(box[1] * scale[1]),
                round(box[2] * scale[0]),
                round(box[3] * scale[1]),
            )
        )
        pixels = np.asarray(part).reshape(part.height, part.width, -1)
        rows = (2 * np.arange(part.height) + 1) * mask.shape[0] // (2 * part.height)
        columns = (2 * np.arange(part.width) + 1) * mask.shape[1] // (2 * part.width)
        source = data_uri(overlaid(pixels, mask[np.ix_(rows, columns)]), max(part.size))
        words = self.words(picture, index)
        drawn = Markup('<img class="found" src="{}" alt="{}">').format(source, ", ".join(words))
        return {"drawn": drawn, "words": words}

    def words(self, picture: Picture, index: int) -> list[str]:
        """The share of each class that was found."""
        shares = zip(self.dataset.class_names, self._shares(picture, index), strict=True)
        return [f"{name} {share:.1%}" for name, share in shares if share]


FINDERS: Mapping[str, Any] = Total(
    "predict.found: what is found in a user's pictures", TASKS, {"detection": Boxes, "segmentation": Masks}
)
"""Task -> its Finder."""


def placed(dataset: Dataset, picture: Picture) -> Placement:
    """Where an original lies in what the network saw of it."""
    return placement(picture.size, dataset.shape[1], dataset.shape[0], dataset.resize)


def found_page(
    names: Sequence[str],
    pictures: Sequence[Picture],
    finder: Finder,
    dataset: Dataset,
    facts: Mapping[str, Any],
    skipped: Iterable[str] = (),
    threshold: float | None = None,
) -> str:
    """Self-contained HTML text: each picture with what was found in it.

    threshold : score from which on boxes are shown (detection). For the rest see `answers.answers_page`.
    """
    cards = [
        {"name": name, "size": picture.size, "seen": data_uri(picture.pixels), **finder.card(picture, index)}
        for index, (name, picture) in enumerate(zip(names[:SHOWN], pictures[:SHOWN], strict=True))
    ]
    height, width, channels = dataset.shape
    return render(
        "found_pictures.html.j2",
        cards=cards,
        task=dataset.task,
        total=len(names),
        facts=facts,
        skipped=list(skipped),
        resize=dataset.resize,
        threshold=threshold,
        legend=[
            {"name": name, "colour": "#{:02x}{:02x}{:02x}".format(*colour_of(kind))}
            for kind, name in enumerate(dataset.class_names)
            if kind
        ],
        class_names=dataset.class_names,
        shape={"height": height, "width": width, "grey": channels == 1},
    )
