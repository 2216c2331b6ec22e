"""Two finished runs, or stages of them, side by side: which pictures they answer otherwise, and how."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dpuflow.accuracy.evaluation import Record
from dpuflow.base.errors import UserError
from dpuflow.report.inputs import Images, open_images
from dpuflow.report.results import common, comparison
from dpuflow.task.figures import Figure
from dpuflow.task.tasks import read_stage, task_of

PATTERN = "*_accuracy.json"
SHOWN = 20
"""Pictures that the words list."""


def compared(first: Path, second: Path, dataset: Path | None = None) -> dict[str, Any]:
    """What two accuracy records say of each other.

    first, second : a record (`*_accuracy.json`), or a folder that holds one. dataset : the dataset.h5 that
    they were measured on; None: the one in a folder above the first, if there is one.

    Returns
    -------
    dict for JSON: records (path, stage, images, figures), split, dataset, unit (of lost and gained), the keys
    of `report.results.comparison`, and of a
    classification `changed`: for each picture that gets another class image (its number), before, after,
    and with the data set true and path (of picture files).

    Raises
    ------
    UserError : no record there, or records of other pictures.
    """
    paths = [_record(path.expanduser()) for path in (first, second)]
    a, b = records = [read_stage(path) for path in paths]
    for key in ("task", "split", "images", "labels_sha256"):
        if a.get(key) != b.get(key):
            raise UserError(
                f"{paths[0]} and {paths[1]}: not of the same pictures: {key} is {a.get(key)!r} in the first, "
                f"{b.get(key)!r} in the second; expected two runs on one data set, on all of its pictures"
            )
    if ("accuracy" in a) != ("accuracy" in b):
        raise UserError(f"{paths[0]} and {paths[1]}: only one of them says the class of a picture")
    task = task_of(a)
    place = dataset.expanduser() if dataset else _dataset_above(paths[0])
    images = open_images(place, a) if place else None
    content: dict[str, Any] = {
        "records": [
            {
                "path": str(path),
                "stage": record["stage"],
                "images": record["images"],
                "figures": _figures(record),
            }
            for path, record in zip(paths, records, strict=True)
        ],
        "split": a["split"],
        "dataset": str(place) if place else None,
        "unit": "pictures" if task is None else task.UNIT,
    }
    names = str(paths[0]), str(paths[1])
    one, other = _alike_outputs(a, b)
    content |= comparison(one, other, images, names)
    if task is None and "accuracy" in a:
        content["changed"] = _changed(a, b, images)
    return content


def _record(path):
    """The accuracy record that a path means."""
    if not path.exists():
        raise UserError(f"{path}: does not exist; expected a run's folder or its accuracy record ({PATTERN})")
    if not path.is_dir():
        return path
    found = sorted(path.glob(PATTERN))
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(entry.name for entry in found)
        raise UserError(f"{path}: holds the accuracy of several stages ({listed}); name one of them")
    below = sorted(str(entry.relative_to(path)) for entry in path.rglob(PATTERN))
    more = f"; below it there are {', '.join(below[:6])}" if below else ""
    raise UserError(f"{path}: no accuracy record ({PATTERN}) in this folder{more}")


def _dataset_above(path):
    places = [folder / "dataset.h5" for folder in path.absolute().parents]
    return next((place for place in places if place.exists()), None)


def _figures(record: Record) -> list[dict[str, Any]]:
    task = task_of(record)
    found = [] if task is None else task.figures(record)
    if task is None and "accuracy" in record:
        found.append(Figure("accuracy", record["accuracy"], record["interval95"]))
        if "top5" in record:
            found.append(Figure("top-5", record["top5"]["accuracy"], record["top5"]["interval95"]))
    return [{"name": each.name, "value": each.value, "interval95": list(each.interval)} for each in found]


def _alike_outputs(a, b):
    """The records; without their outputs where two networks of one task end otherwise."""
    shapes = [{name: out["shape"] for name, out in record.get("outputs", {}).items()} for record in (a, b)]
    if shapes[0] == shapes[1] or (task_of(a) is None and "accuracy" not in a):
        return a, b
    return tuple({key: value for key, value in record.items() if key != "outputs"} for record in (a, b))


def _changed(a: Record, b: Record, images: Images | None) -> list[dict[str, Any]]:
    before, after = (np.asarray(classes) for classes in common(a, b))
    names = [[entry["class"] for entry in record["per_class"]] for record in (a, b)]
    numbers = np.flatnonzero(before != after)
    rows = [{"image": int(i), "before": names[0][before[i]], "after": names[1][after[i]]} for i in numbers]
    if images is None or not rows:
        return rows
    with h5py.File(images.dataset.path, "r") as file:
        paths = file["paths"].asstr()[()] if "paths" in file else None
    for row, i in zip(rows, numbers, strict=True):
        row["true"] = images.class_names[images.labels[i]]
        if paths is not None:
            row["path"] = str(paths[images.rows[i]])
    return rows


# ---- in words


def words(content: dict[str, Any], rows: int = SHOWN) -> str:
    """The comparison for people; rows : how many changed pictures are listed."""
    lines = []
    for letter, record in zip("AB", content["records"], strict=True):
        figures = ", ".join(f"{f['name']} {f['value']:.2%} {_interval(f)}" for f in record["figures"])
        lines.append(f"{letter}: {record['path']}: {figures or 'no class of a picture'}")
    alike = "the same class" if "changed" in content else "equal answers"
    lines.append(
        f"{alike}: {content['equal']:,} of {content['images']:,} of the "
        f"{content['split']} split ({content['equal'] / content['images']:.2%})"
    )
    if "change" in content:
        low, high = content["change_interval95"]
        p = content.get("p_value")
        lines.append(
            f"change from A to B: {100 * content['change']:+.2f} points (95 % interval {100 * low:+.2f} to "
            f"{100 * high:+.2f}{'' if p is None else f', p = {p:.3g}'}): {content['unit']} lost "
            f"{content['lost']:,}, gained {content['gained']:,}"
        )
    elif "changed" in content or content["records"][0]["figures"]:
        lines.append("which are right is not known without the data set: --dataset results/NAME/dataset.h5")
    if "top5" in content:
        best = content["top5"]
        lines.append(
            f"top-5: {100 * best['change']:+.2f} points, {best['lost']} lost, {best['gained']} gained"
        )
    for name, output in content.get("outputs", {}).items():
        lines.append(
            f"output {name}: every bit equal in {output['equal']} of {output['images']} pictures, at most "
            f"{output['max_difference']:g} apart"
        )
    changed = content.get("changed", [])
    if changed and rows:
        lines += ["", *_table(changed[:rows])]
    if len(changed) > rows:
        lines.append(f"... {len(changed) - rows:,} more (--rows N, --json)")
    return "\n".join(lines)


def _interval(figure):
    low, high = figure["interval95"]
    return f"({low:.2%} to {high:.2%})"


def _table(changed):
    columns = [key for key in ("image", "path", "true", "before", "after") if key in changed[0]]
    table = [{key: {"before": "A", "after": "B"}.get(key, key) for key in columns}, *changed]
    widths = {key: max(len(str(row[key])) for row in table) for key in columns}
    return ["  ".join(str(row[key]).ljust(widths[key]) for key in columns).rstrip() for row in table]
