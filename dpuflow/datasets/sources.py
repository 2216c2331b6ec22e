"""Obtain train.csv and test.csv: draw them, copy them out of files, or download them."""

import functools
import hashlib
import itertools
import logging
import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.files import atomic_path
from dpuflow.base.writing import explained_writing, scratch_folder
from dpuflow.base.zip_errors import errors_of_zip
from dpuflow.datasets import synthetic_signs
from dpuflow.datasets.csv_forms import count_columns
from dpuflow.datasets.csv_rows import form_of, other_blocks
from dpuflow.datasets.image_csv import ImageShape, count_rows, image_blocks, open_csv, write_image_blocks
from dpuflow.datasets.labels import labels_of
from dpuflow.datasets.locate import PARTS, WHOLE, expand, find_in_folder, form_problem, pick
from dpuflow.datasets.splits import stratified_choice

log = logging.getLogger(__name__)

KAGGLE_HANDLE = "datamunge/sign-language-mnist"

KNOWN_FILES = {
    "4c2897f19fab2b0ae2a7e4fa82e969043315d9f3a1a9cc0948b576bf1189a7e5": "Sign Language MNIST train, CRLF",
    "b7ff39ad5f1210fa765ce11aa5f20c2e97fe467ffc22231aac923c863eef75c4": "Sign Language MNIST train, LF",
    "0e9d67bae23e67f40728e0b63bf15ad4bd5175947b8a9fac5dd9f17ce133c47b": "Sign Language MNIST test, CRLF",
    "178c0dd21c4b0e86d58df12f14ea1e9efa795ad19d146802b3b28094a16d56ae": "Sign Language MNIST test, LF",
}
"""SHA-256 of an uncompressed CSV -> what it is."""


def obtain(
    entry: Mapping[str, Any], train_csv: Path | str, test_csv: Path | str, processes: int | None = None
) -> dict[str, str]:
    """Write the two CSV files that a dataset entry asks for, verified and uncompressed.

    entry : a dataset's config entry: `source` with its `kind` (synthetic, files,
        kaggle), and optionally `image` and `class_names`, against which every row is
        checked, and `test`, the share of one file that is for the test. `source.csv`
        says what `csv_forms` shall not recognise itself.
        processes : how many may draw at a time (None: one per processor).

    Returns {"train": sha256, "test": sha256} of the files, or {"whole": sha256}. UserError on anything
    missing or faulty; then neither file is left half-written.
    """
    source = entry["source"]
    kinds: dict[str, Callable[..., dict[str, str]]] = {
        "synthetic": functools.partial(_obtain_synthetic, processes=processes),
        "files": _obtain_files,
        "kaggle": _obtain_kaggle,
    }
    kind = source.get("kind")
    if kind not in kinds:
        raise UserError(f"source.kind: found {kind!r}, expected one of {', '.join(kinds)}")
    targets = dict(zip(PARTS, (Path(train_csv), Path(test_csv)), strict=True))
    if "test" not in entry or kind == "synthetic":
        return kinds[kind](entry, source, targets)
    with explained_writing(targets["train"]), scratch_folder(targets["train"]) as folder:
        digests = kinds[kind](entry, source, {WHOLE: folder / "whole.csv"})
        _divide(folder / "whole.csv", entry, targets)
    return digests


def _divide(whole, entry, targets):
    """Write train.csv and test.csv of one file in the plain form: a share of each class is for the test."""
    shape = ImageShape.of_config(entry.get("image"))
    labels = np.concatenate([labels for _, labels in image_blocks(whole, shape)])
    chosen = stratified_choice(labels, entry["test"])
    for part, rows in zip(PARTS, (~chosen, chosen), strict=True):
        if not rows.any():
            raise UserError(
                f"test.fraction: {entry['test']['fraction']} of {len(rows)} images leaves none for the {part}"
            )
        blocks = _chosen(image_blocks(whole, shape), rows)
        first = next(blocks)
        write_image_blocks(targets[part], itertools.chain([first], blocks), math.prod(first[0].shape[1:]))
        log.info("%s: %d images", part, rows.sum())


def _chosen(blocks, rows):
    start = 0
    for images, labels in blocks:
        wanted = rows[start : start + len(labels)]
        start += len(labels)
        if wanted.any():
            yield images[wanted], labels[wanted]


def known_as(digest: str) -> str:
    """What the file with this SHA-256 is known as, or ''."""
    return KNOWN_FILES.get(digest, "")


def _obtain_synthetic(entry, source, targets, processes):
    if entry.get("class_names") is not None or entry.get("image") is not None:
        raise UserError("source.kind synthetic draws 28x28 letters A to Y: leave out image and class_names")
    digests = {}
    for part, target in targets.items():
        count = int(source.get(f"{part}_images", synthetic_signs.DEFAULT_COUNTS[part]))
        log.info("drawing %d %s images", count, part)
        blocks = synthetic_signs.drawn_blocks(count, part, int(source.get("seed", 1)), processes)
        write_image_blocks(target, blocks, synthetic_signs.SIDE**2)
        with open(target, "rb") as stream:
            digests[part] = hashlib.file_digest(stream, "sha256").hexdigest()
    return digests


def _obtain_files(entry, source, targets):
    problem = form_problem(source, WHOLE in targets)
    if problem:
        raise UserError(f"source: {problem}")
    if source.get("zip"):
        return _from_zip(entry, source, expand(source["zip"]), targets)
    if source.get("folder"):
        files = {part: find_in_folder(expand(source["folder"]), part) for part in targets}
    else:
        files = {part: expand(source["train" if part == WHOLE else part]) for part in targets}
    copy = _Copier(entry, source)
    return {part: copy(files[part], part, targets[part]) for part in targets}


def _obtain_kaggle(entry, source, targets):
    handle = source.get("handle", KAGGLE_HANDLE)
    try:
        import kagglehub
    except ImportError:
        raise UserError(
            "source.kind kaggle needs the package kagglehub: pip install kagglehub; "
            "or download the files yourself and use kind files"
        ) from None
    try:
        folder = Path(kagglehub.dataset_download(handle))
    except Exception as error:  # kagglehub raises what its HTTP library raises
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"Kaggle dataset {handle}: the download failed ({type(error).__name__}: {reason}). "
            "Kaggle may ask for a token: create one on your account's settings page (API, Create New Token) "
            "and save it as ~/.kaggle/kaggle.json or set KAGGLE_USERNAME and KAGGLE_KEY; "
            "or download the files in a browser and use kind files"
        ) from None
    copy = _Copier(entry, source)
    return {part: copy(find_in_folder(folder, part), part, targets[part]) for part in targets}


def _from_zip(entry, source, archive, targets):
    """Verify and copy both CSVs out of a zip.

    Members are read as streams, so one that unpacks to far more than it should is refused at its
    first faulty line, and one called ../../x has no way to leave the archive.
    """
    digests, copy = {}, _Copier(entry, source)
    with errors_of_zip(archive), zipfile.ZipFile(archive) as bundle:
        members = [name for name in bundle.namelist() if name and not name.endswith("/")]
        for part in targets:
            member = pick(members, part, archive)
            opener = functools.partial(bundle.open, member)
            digests[part] = copy(opener, part, targets[part], name=f"{archive} ({member})")
    return digests


class _Copier:
    """Writes train.csv and test.csv of a dataset entry in the plain form (`image_csv`)."""

    def __init__(self, entry, source):
        self.source = source
        self.labels = labels_of(entry.get("class_names"))
        self.shape = ImageShape.of_config(entry.get("image"))
        self.train_form = None
        self.train_columns = None

    def __call__(self, path, part, target, name=None):
        """Check every row of `path`, then write `target`; return the SHA-256 of `path`, uncompressed.

        The plain form is copied as it is; what else is recognised (`csv_forms`) is written anew.
        """
        name = name or path
        plain = self._plain_rows(path, name)
        if plain:
            rows, shape = plain
            with atomic_path(target) as temporary, open(temporary, "wb") as copy:
                digest = self._digest(path, part, name, copy.write)
        else:
            digest = self._digest(path, part, name)
            form = self._form(path, name)
            self.train_form = self.train_form or form
            log.info("%s: %s", name, form)
            rows, shape = self._write(other_blocks(path, form, self.labels, name=name), form, target)
        self.train_columns = self.train_columns or (shape.pixels + 1 if plain else self.train_form.columns)
        known = known_as(digest)
        size = "x".join(map(str, shape.as_tuple()))
        log.info("%s: %d images of %s; %s", name, rows, size, known or "not a file known by checksum")
        if known and part != WHOLE and f" {part}," not in known:
            log.warning("warning: %s: used as the %s file, but it is %s", name, part, known)
        return digest

    def _form(self, path, name):
        """The Form of a file; a test file that lacks the column of the labels is told as such."""
        try:
            return form_of(
                path, self.source.get("csv"), self.shape, self.labels, name=name, like=self.train_form
            )
        except UserError:
            if self.train_columns and count_columns(path, name) == self.train_columns - 1:
                raise UserError(
                    f"{name}: {self.train_columns - 1} columns, one less than the training file has: it "
                    "seems to hold no labels, as the test files of competitions do. Take a share of the "
                    "training file for the test: leave this file out of source, and give the data set "
                    "test: {fraction: 0.2, seed: 1}"
                ) from None
            raise

    def _plain_rows(self, path, name):
        """(rows, shape) of a file in the plain form without a fault, or None."""
        if self.source.get("csv"):
            return None
        try:
            return count_rows(path, self.shape, self.labels.present, name=name)
        except UserError:  # if it is a fault in every form, reading it in its own form tells it
            return None

    def _digest(self, path, part, name, take=lambda chunk: None):
        """Checksum of the uncompressed file, compared with the configuration's; `take` gets every chunk."""
        digest = hashlib.sha256()
        with open_csv(path, name) as packed:
            for chunk in iter(functools.partial(packed.read, 1 << 20), b""):
                digest.update(chunk)
                take(chunk)
        key = f"{'train' if part == WHOLE else part}_sha256"
        found, wanted = digest.hexdigest(), self.source.get(key)
        if wanted and wanted != found:
            raise UserError(
                f"{name}: SHA-256 of the uncompressed CSV is {found}, expected {wanted} "
                f"(source.{key}); obtain the file again or correct the config"
            )
        return found

    def _write(self, blocks, form, target):
        rows = 0

        def _counted():
            nonlocal rows
            for images, labels in blocks:
                rows += len(labels)
                yield images, labels

        write_image_blocks(target, _counted(), form.shape.pixels)
        return rows, form.shape
