"""A network's outputs by name: their values, and what is written down of them.

Python 3.6 or later; part of a dpuflow bundle, next to app.py. What is kept of each picture is what
dpuflow keeps of every stage (accuracy/outputs.py), so that they can be compared.
"""

import hashlib

import numpy as np

VALUES = 1 << 16
DIGITS = 16
STRIDE = 7919


def named_outputs(meta, values):
    """{output's name: float32 (n, ...)} of the values of a session's run."""
    found = {}
    for name, told in meta.get("outputs", {}).items():
        real = np.asarray(values[told["value"]])
        if "fix_point" in told:
            real = np.ldexp(real.astype(np.float32), -told["fix_point"])
        found[name] = real.astype(np.float32).reshape([len(real)] + told["shape"])
    return found


class Summary:
    """Of every picture and output a digest of all values and a few of the values, by the picture's number.

    count : pictures of this run; total : pictures of the bundle.
    """

    def __init__(self, meta, count):
        self.total = meta["images"]["count"]
        self.shapes = {name: told["shape"] for name, told in meta.get("outputs", {}).items()}
        self.digests = {name: [None] * count for name in self.shapes}
        self.values = {name: [None] * count for name in self.shapes}

    def add(self, start, outputs):
        """Outputs of the pictures from number `start` on; threads may add theirs at the same time."""
        for name, rows in outputs.items():
            rows = rows.reshape(len(rows), -1) + np.float32(0)  # one zero: -0 + 0 is 0
            size = rows.shape[1]
            kept = np.arange(max(1, min(size, VALUES // self.total)))
            for number, row in enumerate(rows, start):
                row = np.ascontiguousarray(row, "<f4")
                places = (kept * size // len(kept) + number * STRIDE) % size
                self.digests[name][number] = hashlib.sha256(row.tobytes()).hexdigest()[:DIGITS]
                self.values[name][number] = row[places]

    def record(self):
        """The dict `outputs` of board.json."""
        return {
            name: {
                "shape": shape,
                "digests": self.digests[name],
                "values": [float(f"{value:.9g}") for value in np.concatenate(self.values[name])],
            }
            for name, shape in self.shapes.items()
        }

    def different(self, other):
        """Set of the pictures of which another run's digests differ."""
        return {
            number
            for name, digests in self.digests.items()
            for number, digest in enumerate(digests)
            if other.digests[name][number] != digest
        }
