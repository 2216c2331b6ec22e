"""What the page shows about one run below the stage table: errors, classes, curves, confusion."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from dpuflow.accuracy.evaluation import confusion_matrix, per_class_accuracy
from dpuflow.report import figures
from dpuflow.report.confused import group_views
from dpuflow.report.images import data_uri
from dpuflow.report.inputs import LoadedRun

SHOWN_ERRORS = 60
MATRIX_CLASSES = 40
"""Classes with images; above it a matrix of all of them says nothing at a size that a page has."""

ERROR_GROUPS = {
    "lost": "Right in the first stage, wrong in the last",
    "every": "Wrong in every stage",
    "between": "Wrong in some stages only",
    "regained": "Wrong in the first stage, right in the last",
}


LETTERS = 3
"""Characters of a class name that the cards of misclassified images show side by side."""
NOT_RUN = -1


def predictions_of(run: LoadedRun) -> dict[str, np.ndarray]:
    """{stage: (N,) int64 predictions}, NOT_RUN for images that a stage did not get to."""
    size = max(record["images"] for record in run.records.values())
    found = {}
    for stage, record in run.records.items():
        found[stage] = np.full(size, NOT_RUN, np.int64)
        found[stage][: record["images"]] = record["predictions"]
    return found


def matrix_of(run: LoadedRun, given: np.ndarray) -> np.ndarray:
    """Confusion matrix of one stage over the images that it saw; ValueError without dataset."""
    if run.images is None:
        raise ValueError("without the dataset the labels are not known image by image")
    seen = given != NOT_RUN
    return confusion_matrix(run.images.labels[seen], given[seen], len(run.class_names))


def misclassified(run: LoadedRun, limit: int = SHOWN_ERRORS) -> dict[str, Any] | None:
    """Images that at least one stage got wrong, grouped by how the stages fared.

    All of them up to `limit`; beyond it the ones lost on the way get up to half the places,
    those that stages disagree on otherwise up to a sixth, and those that most stages got
    wrong the rest.

    Returns
    -------
    dict: total, shown, named (whether class names are words, not a few letters), groups (list of title,
    total, images); an image is index (position
    in the split), src (data URI), truth, answers (letter, right) per stage;
    letter is None where a stage did not get to the image. None without dataset.
    """
    if run.images is None:
        return None
    labels, names = run.images.labels, run.class_names
    given = np.array(list(predictions_of(run).values()))
    ran = given != NOT_RUN
    wrong = (given != labels) & ran
    positions = np.flatnonzero(wrong.any(axis=0))
    kinds = np.array([_kind(wrong[ran[:, p], p]) for p in positions], dtype=object)
    chosen = _choose(positions, kinds, wrong.sum(axis=0), limit)
    pictures: Iterable[np.ndarray] = run.images.read(chosen) if len(chosen) else []
    cards = {
        int(p): {
            "index": int(p),
            "src": data_uri(picture),
            "truth": names[labels[p]],
            "answers": [
                {"letter": names[c] if c != NOT_RUN else None, "right": bool(c == labels[p])}
                for c in given[:, p]
            ],
        }
        for p, picture in zip(chosen, pictures, strict=True)
    }
    groups = []
    for kind, title in ERROR_GROUPS.items():
        members = positions[kinds == kind]
        shown = [cards[int(p)] for p in members if int(p) in cards]
        if len(members):
            groups.append({"title": title, "total": len(members), "images": shown})
    named = max(map(len, names), default=0) > LETTERS
    return {"total": len(positions), "shown": len(chosen), "named": named, "groups": groups}


def _kind(wrong: np.ndarray) -> str:
    if wrong.all():
        return "every"
    if wrong[0] == wrong[-1]:
        return "between"
    return "regained" if wrong[0] else "lost"


def _choose(positions: np.ndarray, kinds: np.ndarray, times_wrong: np.ndarray, limit: int) -> np.ndarray:
    if len(positions) <= limit:
        return positions
    lost = positions[kinds == "lost"][: limit // 2]
    changed = positions[(kinds == "between") | (kinds == "regained")][: limit // 6]
    rest = np.setdiff1d(positions, np.concatenate([lost, changed]))
    worst = rest[np.argsort(-times_wrong[rest], kind="stable")]
    return np.sort(np.concatenate([lost, changed, worst[: limit - len(lost) - len(changed)]]))


def confusions(run: LoadedRun, anchor: str) -> list[dict[str, Any]] | None:
    """Per stage: label, svg, groups, errors (count), the commonest mistakes and same_as (an earlier label).

    With more than MATRIX_CLASSES classes svg is None and `groups` are the classes most often taken for one
    another, each with a matrix of its own. anchor : prefix of ids in the page. A matrix that an earlier stage
    has too is drawn by reference. None without dataset.
    """
    if run.images is None:
        return None
    names = run.class_names
    views = []
    known: dict[bytes, tuple[str, Markup | None, list[dict[str, Any]]]] = {}
    for stage, given in predictions_of(run).items():
        matrix, label = matrix_of(run, given), run.stage_label(stage)
        same, svg, groups = known.get(matrix.tobytes(), (None, None, []))
        if same is None:
            if int((matrix.sum(axis=1) > 0).sum()) > MATRIX_CLASSES:
                groups = _group_figures(matrix, names, label, f"{anchor}-{stage}")
                copies = [group | {"svg": group.pop("copy")} for group in groups]
                known[matrix.tobytes()] = (label, None, copies)
            else:
                svg, copy = figures.confusion(
                    matrix, names, f"Confusion matrix of {label}", f"{anchor}-{stage}"
                )
                known[matrix.tobytes()] = (label, copy, [])
        views.append(
            {
                "stage": stage,
                "label": label,
                "same_as": same,
                "svg": svg,
                "groups": groups,
                "errors": int(matrix.sum() - np.trace(matrix)),
                "mistakes": _commonest_mistakes(matrix, names),
            }
        )
    return views


def _group_figures(matrix, names, label, anchor):
    """Small matrices of the classes that are most often taken for one another: svg, copy (by reference)."""
    # a single mistake is a line of the list below, not worth a matrix
    views = [view for view in group_views(matrix, names) if view["mistakes"] > 1]
    for index, view in enumerate(views, 1):
        title = f"{label}: classes taken for one another, group {index}"
        drawn = figures.confusion(view.pop("matrix"), view["names"], title, f"{anchor}-{index}")
        view["svg"], view["copy"] = drawn
    return views


def _commonest_mistakes(matrix: np.ndarray, names: Sequence[str], most: int = 6) -> list[dict[str, Any]]:
    errors = matrix.copy()
    np.fill_diagonal(errors, 0)
    order = np.argsort(-errors, axis=None, kind="stable")[:most]
    pairs = [np.unravel_index(flat, errors.shape) for flat in order]
    return [
        {"truth": names[i], "given": names[j], "count": int(errors[i, j])} for i, j in pairs if errors[i, j]
    ]


def classes(run: LoadedRun, most: int | None = None) -> list[dict[str, Any]] | None:
    """Rows of the per-class table: name, images and per stage accuracy, correct, interval.

    Of more than MATRIX_CLASSES classes the worst come first, by the last stage that saw images of them, and
    `most` rows are kept. None without dataset.
    """
    if run.images is None:
        return None
    tables = [per_class_accuracy(matrix_of(run, given)) for given in predictions_of(run).values()]
    rows = []
    for index, name in enumerate(run.class_names):
        cells = [table[index] for table in tables]
        if cells[0]["images"]:
            rows.append({"name": name, "images": cells[0]["images"], "stages": cells})
    if len(rows) <= MATRIX_CLASSES:
        return rows
    rows.sort(key=lambda row: next(c["accuracy"] for c in reversed(row["stages"]) if c["images"]))
    return rows[:most]


def training(run: LoadedRun) -> dict[str, Any] | None:
    """Training curves: charts (title, svg), best (epoch whose weights were kept), epochs.

    None without a history.
    """
    history = run.history
    if history is None or history.empty:
        return None
    best = int(np.argmax(history["kept"].to_numpy())) + 1 if "kept" in history else None
    charts = []
    for column, title in (("accuracy", "Accuracy"), ("loss", "Loss")):
        series = [
            (words, history[name].to_numpy(), class_)
            for name, words, class_ in (
                (column, "training", "first"),
                (f"validation_{column}", "validation", "second"),
            )
            if name in history
        ]
        if series:
            percent = column == "accuracy"
            charts.append({"title": title, "svg": figures.curves(title, series, best, percent)})
    return {"charts": charts, "best": best, "epochs": len(history)} if charts else None


def sizes(run: LoadedRun) -> list[dict[str, Any]]:
    """Bytes of the model at each stage, with the share of the largest for a bar."""
    wanted = ("keras_model", "checkpoint", "frozen_graph", "quantized_graph", "quantized_model", "xmodel")
    rows = [
        {"name": f["name"], "bytes": f["bytes"], "path": f["path"]} for f in run.files if f["key"] in wanted
    ]
    largest = max((row["bytes"] for row in rows), default=1) or 1
    for row in rows:
        row["share"] = row["bytes"] / largest
    return rows
