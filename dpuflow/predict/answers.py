"""The best classes of each picture: from the network's outputs to a table and a page."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dpuflow.datasets.picture_files import KEPT_SIDE, Picture
from dpuflow.report.images import data_uri
from dpuflow.report.page import render

SHOWN = 200
"""Pictures on the page; the table holds all."""
Answers = list[dict[str, Any]]
"""Of one picture: {"rank", "label", "name", "score"}, best first."""
COLUMNS = ("image", "rank", "label", "name", "score")


def best_classes(scores: np.ndarray, class_names: Sequence[str], top: int) -> list[Answers]:
    """Per picture the `top` classes with the greatest score, best first.

    scores : float (N, classes). Returns N lists of {"rank", "label", "name", "score"}; of
    equal scores the smaller label comes first.
    """
    order = np.argsort(-np.asarray(scores), axis=1, kind="stable")[:, :top]
    return [
        [
            {"rank": rank, "label": int(label), "name": class_names[label], "score": float(row[label])}
            for rank, label in enumerate(labels, 1)
        ]
        for row, labels in zip(np.asarray(scores), order, strict=True)
    ]


def answers_csv(names: Sequence[str], answers: Sequence[Answers]) -> str:
    """CSV text with COLUMNS, `top` rows per picture."""
    rows = [{"image": name, **answer} for name, best in zip(names, answers, strict=True) for answer in best]
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.to_csv(index=False, lineterminator="\n", float_format="%.6g")


def answers_page(
    names: Sequence[str],
    pictures: Sequence[Picture],
    answers: Sequence[Answers],
    facts: Mapping[str, Any],
    softmax: bool,
    invert: bool,
    skipped: Iterable[str] = (),
    resize: str = "crop",
) -> str:
    """Self-contained HTML text: original, what the network saw, the best classes.

    pictures : list of `picture_files.Picture`; facts : mapping of what to say about the
    network; softmax : whether the scores are those of a softmax; skipped : why files were left out;
    resize : how the pictures were brought to the network's shape.
    """
    cards = [
        {
            "name": name,
            "best": best,
            "size": picture.size,
            "original": thumbnail(picture.original),
            "frame": _frame(picture),
            "seen": data_uri(picture.pixels),
        }
        for name, picture, best in zip(names[:SHOWN], pictures[:SHOWN], answers[:SHOWN], strict=True)
    ]
    height, width, channels = pictures[0].pixels.shape
    return render(
        "predictions.html.j2",
        cards=cards,
        total=len(names),
        facts=facts,
        softmax=softmax,
        skipped=list(skipped),
        invert=invert,
        resize=resize,
        shape={"height": height, "width": width, "grey": channels == 1},
    )


def _frame(picture):
    """The crop in percent of the original: left, top, width, height."""
    across, down = picture.size
    left, top, right, bottom = picture.crop
    values = (left / across, top / down, (right - left) / across, (bottom - top) / down)
    return [f"{100 * value:.2f}" for value in values]


def thumbnail(image: Any) -> str:
    """Data URI of a PIL image, shrunk: JPEG, but small ones as PNG, which keeps their pixels."""
    small = max(image.size) <= 96
    copy = image.copy()
    copy.thumbnail((KEPT_SIDE, KEPT_SIDE))
    stream = io.BytesIO()
    copy.save(stream, "PNG" if small else "JPEG", **({} if small else {"quality": 82}))
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
