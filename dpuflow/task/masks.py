"""The class of each pixel: as records hold it, and how right it is."""

import base64
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from dpuflow.accuracy.evaluation import wilson_interval
from dpuflow.base.errors import UserError
from dpuflow.datasets.tasks import NO_CLASS

DRAWS = 200
"""Times that the pictures are drawn again, for an interval."""

SHARE, RAW = 0.5, 0.0
"""Above which a value of one channel means class 1: of a sigmoid, and of what goes into one."""


def packed(mask: np.ndarray) -> str:
    """A mask uint8 (H, W) as text: deflated, in base64."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(mask).tobytes(), 9)).decode("ascii")


def unpacked(text: str, shape: tuple[int, int]) -> np.ndarray:
    """The reverse of `packed`; ValueError for what is none. shape : (H, W)."""
    size = shape[0] * shape[1]
    decoder = zlib.decompressobj()
    try:
        content = decoder.decompress(base64.b64decode(text, validate=True), size + 1)
    except (ValueError, zlib.error) as error:
        raise ValueError(f"no mask ({error})") from None
    if len(content) != size:
        raise ValueError(f"a mask of {len(content)} pixels, expected {size}")
    return np.frombuffer(content, np.uint8).reshape(shape)


class PackedMasks(Sequence[np.ndarray]):
    """The masks of many pictures, which are unpacked one at a time: thousands of them need little memory.

    shape : (H, W) of each. texts : as of `packed`.
    """

    def __init__(self, shape: tuple[int, int], texts: Iterable[str] = ()) -> None:
        self.shape, self.texts = shape, list(texts)

    def append(self, mask: np.ndarray) -> None:
        """One more."""
        self.texts.append(packed(mask))

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, number: Any) -> Any:
        """uint8 (H, W); ValueError where the text is no mask."""
        return unpacked(self.texts[number], self.shape)


def packed_texts(answers: Sequence[np.ndarray]) -> list[str]:
    """`packed` of each."""
    return list(answers.texts) if isinstance(answers, PackedMasks) else [packed(mask) for mask in answers]


def classes_of_pixels(
    scores: np.ndarray, shape: tuple[int, int], where: Any, cut: float | None = None
) -> np.ndarray:
    """The class of each pixel, uint8 (n, H, W): the place of the greatest score, the first of equal ones.

    scores : (n, h, w, classes) of maps as large as the picture or smaller by a whole factor: then each value
    is that of a square of pixels. cut : of maps with one channel: class 1 from above this value on (a share,
    0.5, or a raw score, 0), else class 0. UserError for other maps, and for shares that are none.
    """
    if scores.ndim != 4:
        raise UserError(
            f"{where}: task segmentation needs maps (height, width, classes), found {scores.shape[1:]}"
        )
    factors = shape[0] / scores.shape[1], shape[1] / scores.shape[2]
    if factors[0] != factors[1] or factors[0] != int(factors[0]):
        raise UserError(
            f"{where}: maps of {scores.shape[1]} x {scores.shape[2]} for pictures of {shape[0]} x "
            f"{shape[1]}; expected the "
            "same size, or one smaller by a whole factor"
        )
    if cut is None:
        found = scores.argmax(axis=-1).astype(np.uint8)
    else:
        if cut == SHARE and not (scores.min(initial=0) >= 0 and scores.max(initial=0) <= 1):
            raise UserError(
                f"{where}: an output of one channel holds the share of class 1, from 0 to 1; found "
                f"{scores.min():g} to {scores.max():g}; of a network that ends in front of its sigmoid say "
                "models.NAME.decode: {kind: none, scores: sigmoid}"
            )
        found = (scores[..., 0] > cut).astype(np.uint8)
    factor = int(factors[0])
    return found.repeat(factor, axis=1).repeat(factor, axis=2) if factor > 1 else found


def confusion(truth: np.ndarray, found: np.ndarray, classes: int) -> np.ndarray:
    """Counts (classes, classes) int64 of a picture's pixels: row = true class, column = class found."""
    counted = truth != NO_CLASS
    cells = truth[counted].astype(np.int64) * classes + found[counted]
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


class Pixels(NamedTuple):
    """Counts of pixels by class, int64 (..., classes) each: all that figures and their intervals need.

    Of n pictures they are n x classes numbers, where confusions would be n x classes squared.
    """

    right: np.ndarray
    """Found to be what they are."""
    true: np.ndarray
    """Of the class."""
    given: np.ndarray
    """Found to be of the class."""


def pixels_of(matrix: np.ndarray) -> Pixels:
    """Those of confusions (..., classes, classes)."""
    return Pixels(np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(axis=-1), matrix.sum(axis=-2))


def class_overlaps(pixels: Pixels) -> np.ndarray:
    """(..., classes) float64: intersection by union of each class; NaN of one that no true pixel has."""
    union = pixels.true + pixels.given - pixels.right
    shares = pixels.right.astype(np.float64) / np.where(union > 0, union, 1)
    return np.where(pixels.true > 0, shares, np.nan)


def drawn_again(pixels: Pixels, draws: int = DRAWS) -> Pixels:
    """(draws, classes): sums of those of pictures (n, classes), drawn again."""
    count = len(pixels.true)
    generator = np.random.Generator(np.random.PCG64(0))
    weights = np.stack(
        [np.bincount(generator.integers(count, size=count), minlength=count) for _ in range(draws)]
    )
    return Pixels(*(weights @ part for part in pixels))


def mean_overlap(pixels: Pixels) -> np.ndarray:
    """Mean intersection by union (...,) of the classes that some true pixel has."""
    shares = class_overlaps(pixels)
    known = ~np.isnan(shares)
    return np.where(known, shares, 0).sum(axis=-1) / np.maximum(known.sum(axis=-1), 1)


def pixel_accuracy(pixels: Pixels) -> np.ndarray:
    """Share (...,) of the pixels that are right."""
    return pixels.right.sum(axis=-1) / np.maximum(pixels.true.sum(axis=-1), 1)


def changes(before: Sequence[np.ndarray], after: Sequence[np.ndarray]) -> dict[str, Any]:
    """How the masks of two stages for the same pictures differ.

    Returns images, equal (pictures with no other pixel), interval95 (of their share), pixels, changed,
    agreement (share of equal
    pixels) and
    first_difference (a picture, or None).
    """
    pixels = changed = 0
    differing = []
    for index, (a, b) in enumerate(zip(before, after, strict=True)):
        others = int((a != b).sum())
        pixels, changed = pixels + a.size, changed + others
        if others:
            differing.append(index)
    return {
        "images": len(before),
        "equal": len(before) - len(differing),
        "interval95": list(wilson_interval(len(before) - len(differing), len(before))),
        "pixels": pixels,
        "changed": changed,
        "agreement": 1 - changed / pixels,
        "first_difference": differing[0] if differing else None,
    }
