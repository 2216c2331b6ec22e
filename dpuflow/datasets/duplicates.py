"""Images that occur more than once, told by their content."""

import hashlib
import logging
from collections.abc import Callable

import numpy as np

from dpuflow.base.errors import UserError

log = logging.getLogger(__name__)


def content_hashes(images: np.ndarray) -> np.ndarray:
    """A 128-bit BLAKE2b of each image's bytes: uint64 (N, 2)."""
    rows = np.ascontiguousarray(images).reshape(len(images), -1)
    digests = b"".join(hashlib.blake2b(row.data, digest_size=16).digest() for row in rows)
    return np.frombuffer(digests, np.uint64).reshape(-1, 2)


def _keys(hashes):
    """uint64 (N, 2) -> (N,) of one 16-byte value each, for sorting and set operations."""
    return np.ascontiguousarray(hashes).view("V16").ravel()


def repeated(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(first, again): int64 arrays of row pairs where row `again` repeats the earlier row `first`."""
    order = np.lexsort((np.arange(len(hashes)), hashes[:, 1], hashes[:, 0]))
    sorted_hashes = hashes[order]
    same = (sorted_hashes[1:] == sorted_hashes[:-1]).all(axis=1)
    start = np.concatenate([[True], ~same]) if len(hashes) else np.zeros(0, bool)
    group_first = order[start][np.cumsum(start) - 1]
    again = ~start
    pairs = sorted(zip(order[again].tolist(), group_first[again].tolist(), strict=True))
    table = np.array(pairs, np.int64).reshape(-1, 2)
    return table[:, 1], table[:, 0]


def shared_with(hashes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """bool (N,): which of `hashes` also occur in `others`."""
    table = {bytes(key) for key in _keys(others).tolist()}
    return np.array([bytes(key) in table for key in _keys(hashes).tolist()], bool)


def check_duplicates(
    hashes: np.ndarray,
    labels: np.ndarray,
    policy: str,
    name: object,
    where: Callable[[int], str],
    rows: str = "rows",
) -> int:
    """Apply the entry's `duplicates` policy to one file; return the number of repeated images.

    policy : "error" | "warn" | "allow". name : the file, where(row) : a place in it, rows : what it
    consists of, for messages. An image
    that returns under another label is told apart in the message.
    """
    first, again = repeated(hashes)
    if not len(again) or policy == "allow":
        return len(again)
    conflicts = np.flatnonzero(labels[first] != labels[again])
    example = conflicts[0] if len(conflicts) else 0
    text = (
        f"{name}: {len(again)} images repeat an earlier one "
        f"({where(again[example])} that of {where(first[example])})"
    )
    if len(conflicts):
        text += f", {len(conflicts)} of them with another label"
    if policy == "error":
        raise UserError(
            text + f"; remove the repeated {rows}, or set the dataset's duplicates to warn or allow"
        )
    log.warning("warning: %s", text)
    return len(again)
