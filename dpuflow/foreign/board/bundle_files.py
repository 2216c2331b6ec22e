"""The files of an unpacked bundle, checked.

Python 3.6 or later; part of a dpuflow bundle, next to app.py.
"""

import hashlib
import json
import os

import numpy as np
from board_info import AppError

FORMAT = "dpuflow bundle 2"


class Bundle:
    """meta (dict), images (N, H, W, C) uint8, parameters {key: array} of the CPU layers.

    labels (N,): the classes of the images; geometry (N, 10): how they were prepared; None where not there.
    """

    def __init__(self, folder, check=True):
        try:
            with open(os.path.join(folder, "meta.json"), encoding="utf-8") as stream:
                self.meta = json.load(stream)
        except (OSError, ValueError) as error:
            raise AppError(f"{folder}: not an unpacked bundle (meta.json: {error})") from None
        if self.meta.get("format") != FORMAT:
            raise AppError("{}: format {!r}, expected {!r}".format(folder, self.meta.get("format"), FORMAT))
        if check:
            check_sums(folder)
        self.model = os.path.join(folder, self.meta["model"])
        images = os.path.join(folder, self.meta["images"]["file"])
        self.images = np.load(images, mmap_mode="r", allow_pickle=False)  # a board has little memory
        more = {
            key: np.load(os.path.join(folder, self.meta["images"][key]), allow_pickle=False)
            for key in ("labels", "geometry")
            if key in self.meta["images"]
        }
        self.labels, self.geometry = more.get("labels"), more.get("geometry")
        with np.load(os.path.join(folder, self.meta["parameters"]), allow_pickle=False) as stored:
            self.parameters = {key: stored[key] for key in stored.files}


def check_sums(folder):
    """Compare every file with SHA256SUMS."""
    with open(os.path.join(folder, "SHA256SUMS"), encoding="utf-8") as stream:
        lines = stream.read().splitlines()
    for line in lines:
        expected, name = line.split("  ", 1)
        digest = hashlib.sha256()
        try:
            with open(os.path.join(folder, name), "rb") as stream:
                for block in iter(lambda: stream.read(1 << 20), b""):
                    digest.update(block)
        except OSError as error:
            raise AppError(f"{name}: {error}; copy the bundle again") from None
        if digest.hexdigest() != expected:
            raise AppError(f"{name}: checksum differs; copy the bundle again")
