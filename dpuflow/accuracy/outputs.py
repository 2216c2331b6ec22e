"""What a stage gave for every picture, output by output: small enough for JSON, and comparable.

Of each picture and output a digest of all values is kept (equal digests: equal bits), and of all pictures
together at most VALUES values of each output, evenly over pictures and places, which tell how far two stages
are apart.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from dpuflow.accuracy.evaluation import wilson_interval
from dpuflow.base.errors import UserError
from dpuflow.base.outputs import Shapes

VALUES = 1 << 16
"""Values of an output that a record keeps, of all pictures together."""
DIGITS = 16
"""Hexadecimal digits of a picture's digest."""
STRIDE = 7919
"""By which the places that are kept move from picture to picture: a prime, so that all come up."""


def kept_places(picture: int, size: int, pictures: int) -> np.ndarray:
    """Which of the `size` values of an output of picture number `picture` of `pictures` a record keeps."""
    count = max(1, min(size, VALUES // pictures))
    return (np.arange(count) * size // count + picture * STRIDE) % size


def require_finite(name: str, rows: np.ndarray, first: int) -> None:
    """UserError where an output (N, values) has NaN or infinity; first : number of the first picture."""
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        bad = int(np.flatnonzero(~finite)[0]) + first
        raise UserError(f"output {name!r} of picture {bad} is not finite (NaN or infinity)")


class OutputsSummary:
    """Gathers the outputs of a stage, batch by batch; `record` is the `outputs` of its accuracy record.

    Parameters
    ----------
    shapes : of the outputs. pictures : how many there will be. total : of how many they are the first; what
    is kept of a picture depends on it.
    """

    def __init__(self, shapes: Shapes, pictures: int, total: int | None = None) -> None:
        self.pictures, self.seen, self.total = pictures, 0, total or pictures
        self._shapes = shapes
        self._digests: dict[str, list[str]] = {name: [] for name in shapes}
        self._values: dict[str, list[np.ndarray]] = {name: [] for name in shapes}

    def add(self, outputs: Mapping[str, np.ndarray]) -> None:
        """The outputs (N, ...) of the next pictures."""
        count = 0
        for name in self._shapes:
            rows = np.asarray(outputs[name], "<f4")
            rows = rows.reshape(len(rows), -1) + np.float32(0)  # one zero: -0 + 0 is 0
            count = len(rows)
            require_finite(name, rows, self.seen)
            for number, row in enumerate(rows, self.seen):
                self._digests[name].append(hashlib.sha256(row.tobytes()).hexdigest()[:DIGITS])
                self._values[name].append(row[kept_places(number, row.size, self.total)])
        self.seen += count

    def record(self) -> dict[str, Any]:
        """{output's name: {"shape", "digests": one per picture, "values": those kept}}."""
        if self.seen != self.pictures:
            raise ValueError(f"{self.seen} pictures of {self.pictures}")
        return {
            name: {
                "shape": list(shape),
                "digests": self._digests[name],
                # nine digits name a float32
                "values": [float(f"{value:.9g}") for value in np.concatenate(self._values[name])],
            }
            for name, shape in self._shapes.items()
        }


def compare_outputs(
    before: Mapping[str, Any], after: Mapping[str, Any], names: tuple[str, str] = ("before", "after")
) -> dict[str, dict[str, Any]]:
    """How far two stages are apart, output by output.

    before, after : the `outputs` of two accuracy records of the same pictures, `after` perhaps of the first
    of them only; names : of the stages.

    Returns
    -------
    {output's name: {"images", "equal": pictures of which every bit is equal, "max_difference" and
    "relative_error" (root mean square of the differences by that of `before`) of the values kept}}.
    """
    if set(before) != set(after):
        raise UserError(
            f"{names[0]} has the outputs {', '.join(before)}, {names[1]} {', '.join(after)}; remove the "
            "older record and run again"
        )
    found = {}
    for name, first in before.items():
        second, all_of = after[name], len(first["digests"])
        count = len(second["digests"])
        values = first["values"][: len(first["values"]) // max(1, all_of) * count]
        if len(values) != len(second["values"]) or count > all_of:
            raise UserError(
                f"output {name!r} has the shape {first['shape']} in {names[0]} and {second['shape']} in "
                f"{names[1]}, of {len(first['digests'])} and {len(second['digests'])} pictures"
            )
        a, b = (np.array(v, np.float32).astype(np.float64) for v in (values, second["values"]))
        power, noise = float(np.square(a).sum()), float(np.square(b - a).sum())
        found[name] = {
            "images": count,
            "equal": sum(x == y for x, y in zip(first["digests"][:count], second["digests"], strict=True)),
            "max_difference": float(f"{np.abs(b - a).max():.6g}"),
            "relative_error": float(f"{np.sqrt(noise / power):.6g}") if power else (1.0 if noise else 0.0),
        }
    return found


def pictures_alike(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """In how many pictures every bit of every output is equal in two stages.

    before, after : as for `compare_outputs`. Returns images, equal, agreement (fraction), interval95 (Wilson)
    and first_difference (number of a picture, or None).
    """
    compare_outputs(before, after)  # the same outputs
    count = min(len(output["digests"]) for output in after.values())
    alike = [
        all(before[name]["digests"][k] == after[name]["digests"][k] for name in before) for k in range(count)
    ]
    return {
        "images": count,
        "equal": sum(alike),
        "agreement": sum(alike) / count,
        "interval95": list(wilson_interval(sum(alike), count)),
        "first_difference": alike.index(False) if not all(alike) else None,
    }
