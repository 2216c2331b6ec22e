"""What a network finds in pictures: boxes of objects, or the class of each pixel.

Python 3.6 or later; part of a dpuflow bundle, next to app.py. meta.json's `task` says which, and how outputs
become answers; decode.py is the very file that dpuflow uses.
"""

import csv
import hashlib
import io
import os

import numpy as np
from answers import write_atomically
from decode import Decoder, to_original
from named import named_outputs


def finder(bundle, count):
    """What gathers the answers for `count` pictures; None where the class of a picture is all."""
    told = bundle.meta.get("task")
    return FINDERS[told["name"]](bundle, told, count) if told else None


class Boxes:
    """Boxes of objects: predictions.csv in pixels of the original pictures, boxes.npz in the prepared."""

    def __init__(self, bundle, told, count):
        meta = bundle.meta
        shapes = {name: output["shape"] for name, output in meta["outputs"].items()}
        self.meta, self.geometry = meta, bundle.geometry
        self.decode = Decoder(told["decode"], shapes, tuple(meta["input"]["shape"][:2]))
        self.found = [None] * count

    def add(self, start, values):
        """The values of a session's run, of the pictures from number `start` on."""
        for number, found in enumerate(self.decode(named_outputs(self.meta, values)), start):
            self.found[number] = found

    def write(self, folder):
        """The two files."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["image", "class", "score", "x1", "y1", "x2", "y2"])
        for number, (boxes, scores, classes) in enumerate(self.found):
            corners = to_original(boxes, self.geometry[number])
            for box, score, kind in zip(corners, scores, classes):  # noqa: B905 (Python 3.6)
                figures = [f"{value:.9g}" for value in [float(score)] + box.tolist()]
                writer.writerow([number, self.meta["class_names"][kind]] + figures)
        write_atomically(os.path.join(folder, "predictions.csv"), text.getvalue())
        parts = [np.concatenate(part) for part in zip(*self.found)]  # noqa: B905 (Python 3.6)
        counts = [len(scores) for _, scores, _ in self.found]
        np.savez(
            os.path.join(folder, "boxes.npz"),
            boxes=parts[0],
            scores=parts[1],
            classes=parts[2],
            offsets=np.cumsum([0] + counts),
        )


class Masks:
    """The class of each pixel: masks.npy (count, H, W) uint8 of the prepared pictures, and their digests."""

    def __init__(self, bundle, told, count):
        self.meta, self.output, self.cut = bundle.meta, told["output"], told.get("cut")
        self.size = self.meta["input"]["shape"][:2]
        self.masks = np.zeros([count] + self.size, np.uint8)

    def add(self, start, values):
        """As of Boxes."""
        scores = named_outputs(self.meta, values)[self.output]
        if self.cut is None:
            found = scores.argmax(axis=-1).astype(np.uint8)  # the first of equal ones
        else:
            found = (scores[..., 0] > self.cut).astype(np.uint8)  # one channel: class 1 or class 0
        factor = self.size[0] // found.shape[1]
        self.masks[start : start + len(found)] = found.repeat(factor, axis=1).repeat(factor, axis=2)

    def write(self, folder):
        """The two files."""
        lines = ["image,sha256"]
        lines += [f"{n},{hashlib.sha256(mask.tobytes()).hexdigest()}" for n, mask in enumerate(self.masks)]
        write_atomically(os.path.join(folder, "predictions.csv"), "\n".join(lines) + "\n")
        np.save(os.path.join(folder, "masks.npy"), self.masks)


FINDERS = {"detection": Boxes, "segmentation": Masks}
