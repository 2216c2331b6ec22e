"""Of a segmentation's run: masks side by side, the worst pictures first, and the table of classes."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from dpuflow.datasets.tasks import NO_CLASS
from dpuflow.report.images import data_uri
from dpuflow.report.inputs import LoadedRun
from dpuflow.task import masks, segmentation

SHOWN_PICTURES = 12
SIDE = 200
"""Pixels of the longer side of a picture in the page."""
COLOURS = np.array(
    [
        (0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0),
        (240, 228, 66), (120, 94, 240), (153, 153, 153), (136, 34, 85), (68, 170, 153), (17, 119, 51),
    ],
    np.uint8,
)  # fmt: skip
"""Of classes 1, 2, ...: told apart by people who see few colours (Okabe and Ito, Tol)."""
COVER = 0.55


def colour_of(kind: int) -> tuple[int, int, int]:
    """Red, green, blue of a class; black for class 0."""
    red, green, blue = (0, 0, 0) if kind == 0 else COLOURS[(kind - 1) % len(COLOURS)].tolist()
    return red, green, blue


def overlaid(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3): a picture under the colours of its mask; class 0 as it is, no class in white."""
    base = np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture
    result = base.astype(np.float32)
    for kind in np.unique(mask):
        if kind == 0:
            continue
        colour = (255, 255, 255) if kind == NO_CLASS else colour_of(int(kind))
        here = mask == kind
        result[here] = (1 - COVER) * result[here] + COVER * np.array(colour, np.float32)
    return result.round().astype(np.uint8)


def found_masks(run: LoadedRun, shown: int = SHOWN_PICTURES) -> dict[str, Any] | None:
    """What the page shows below the comparisons; None without the data set."""
    if run.images is None:
        return None
    stages = list(run.records)
    answers = [segmentation.answers_of(run.records[stage]) for stage in stages]
    data, split = run.images.dataset, next(iter(run.records.values()))["split"]
    true = data.masks_in(split)
    shares = [masks.pixel_accuracy(segmentation.counted(data, split, each)[0]) for each in answers]
    changed = [int((a != b).sum()) for a, b in zip(answers[0], answers[-1], strict=True)]
    order = sorted(range(len(true)), key=lambda n: (-changed[n], float(shares[-1][n]), n))
    chosen = order[:shown]
    pictures: Iterable[np.ndarray] = run.images.read(chosen) if chosen else []
    return {
        "kind": "segmentation",
        "curves": [],
        "labels": [run.stage_label(stage) for stage in stages],
        "total": len(true),
        "legend": [
            {"name": name, "colour": "#{:02x}{:02x}{:02x}".format(*colour_of(kind))}
            for kind, name in enumerate(run.class_names)
            if kind
        ],
        "ground": run.class_names[0],
        "pictures": [
            {
                "index": n,
                "changed": changed[n],
                "truth": data_uri(overlaid(picture, true[n : n + 1][0]), SIDE),
                "stages": [
                    {"src": data_uri(overlaid(picture, each[n]), SIDE), "right": float(share[n])}
                    for each, share in zip(answers, shares, strict=True)
                ],
            }
            for n, picture in zip(chosen, pictures, strict=True)
        ],
        "per_class": per_class(run),
    }


def per_class(run: LoadedRun) -> list[dict[str, Any]]:
    """Rows of the table of classes: name, pixels, and by stage the intersection by union."""
    records = list(run.records.values())
    return [
        {
            "name": entry["class"],
            "objects": entry["pixels"],
            "stages": [
                {
                    "value": record["per_class"][number]["iou"],
                    "interval95": record["per_class"][number]["iou_interval95"],
                    "more": None,
                }
                for record in records
            ],
        }
        for number, entry in enumerate(records[0]["per_class"])
    ]
