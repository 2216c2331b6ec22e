"""Training images in a new order each epoch, a stretch at a time: from memory, or from the file meanwhile.

What fits into `IN_MEMORY` is read once and shuffled image by image. More than that stays in the file:
each stretch is put together of short runs of neighbouring images from all over the split, read while
the stretch before it is trained on, and shuffled within itself. Both orders follow from (seed, epoch).
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np

from dpuflow.base.numerics import images_at_a_time

IN_MEMORY = 256 << 20
"""Bytes of pixels that are held in memory."""
STRETCH = 12 << 20
"""Bytes of pixels that are handed over at a time, at most (but for a single batch); two are in memory. Larger
arrays come from the system anew each time, and touching their pages costs more than reading the pixels: with
48 MiB an epoch took twice as long."""
RUN = 1 << 20
"""Bytes of neighbouring images that are read together."""

Read = Callable[[np.ndarray], np.ndarray]
"""Places (n,) of images -> the images, uint8 (n, H, W, C)."""


class Targets(Protocol):
    """What images are trained to, one for each: an array (N,) of labels, or boxes, or masks."""

    def __len__(self) -> int: ...

    def __getitem__(self, places: np.ndarray) -> np.ndarray: ...


class Images(Protocol):
    """Labelled images that are read by their places; `datasets.dataset_file.Part` is one."""

    @property
    def labels(self) -> Targets:
        """Of N images."""

    @property
    def shape(self) -> Sequence[int]:
        """(H, W, C)."""

    def reading(self) -> AbstractContextManager[Read]:
        """A function that reads images by their places, for as long as the context lasts."""


class ArrayImages:
    """Images in memory: uint8 (N, H, W, C), and labels (N,) or other targets."""

    def __init__(self, images: np.ndarray, labels: Targets) -> None:
        self.images, self.labels, self.shape = images, labels, images.shape[1:]

    @contextmanager
    def reading(self) -> Iterator[Read]:
        """As of every source."""
        yield lambda places: self.images[places]


class Targeted:
    """Images of any source with targets of their own."""

    def __init__(self, images: Any, targets: Targets) -> None:
        """images : with `shape` and `reading` as of Images."""
        self.shape, self.labels, self.reading = images.shape, targets, images.reading


def as_images(data: Images | tuple[np.ndarray, np.ndarray]) -> Images:
    """A source of images as it is; (images, labels) as one."""
    return ArrayImages(*data) if isinstance(data, tuple) else data


def batches(data: Images, size: int | None = None) -> Iterator[np.ndarray]:
    """Images in their order, `size` (None: `numerics.images_at_a_time`) at a time."""
    count, size = len(data.labels), size or images_at_a_time(data.shape)
    with data.reading() as read:
        for start in range(0, count, size):
            yield read(np.arange(start, min(start + size, count)))


class Stretches:
    """Shuffled images in stretches of whole batches (the last batch may be short).

    Attributes
    ----------
    steps : batches in an epoch; at_once : batches in a stretch.
    """

    def __init__(self, data: Images, batch: int, most: int, seed: int) -> None:
        """most : batches in a stretch at most."""
        self.count, self.batch, self.seed = len(data.labels), batch, seed
        self.image_bytes = int(np.prod(data.shape))
        self.in_memory = self.count * self.image_bytes <= IN_MEMORY
        if self.in_memory and not isinstance(data, ArrayImages):
            with data.reading() as read:
                data = ArrayImages(read(np.arange(self.count)), data.labels)
        labels = data.labels
        self.data, self.labels = (
            data,
            labels.astype(np.int32) if isinstance(labels, np.ndarray) and labels.ndim == 1 else labels,
        )
        self.steps = -(-self.count // batch)
        self.at_once = min(max(1, STRETCH // (batch * self.image_bytes)), most)

    def order(self, epoch: int) -> np.ndarray:
        """Places (N,) of all images in the order of an epoch."""
        random = np.random.default_rng([self.seed, epoch])
        if self.in_memory:
            return random.permutation(self.count)
        run = max(1, RUN // self.image_bytes)
        runs = random.permutation(-(-self.count // run))
        places = (runs[:, None] * run + np.arange(run)).ravel()
        places = places[places < self.count]
        stretch = self.at_once * self.batch
        for start in range(0, self.count, stretch):
            random.shuffle(places[start : start + stretch])
        return places

    @contextmanager
    def opened(self) -> Iterator[Read]:
        """The source's function to read; hand it to `epoch`."""
        with self.data.reading() as read:
            yield read

    def epoch(self, read: Read, epoch: int, steps: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(images uint8 (n, H, W, C), labels int32 (n,) or other targets) of the first `steps` batches."""
        places = self.order(epoch)[: steps * self.batch]
        stretch = self.at_once * self.batch
        parts = [places[start : start + stretch] for start in range(0, len(places), stretch)]
        if self.in_memory:
            for part in parts:
                yield read(part), self.labels[part]
            return
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(read, parts[0])
            for number, part in enumerate(parts):
                images = ahead.result()
                if number + 1 < len(parts):
                    ahead = pool.submit(read, parts[number + 1])
                yield images, self.labels[part]
