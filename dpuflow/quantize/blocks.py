"""Many pictures in bounded memory: blocks of a few, side by side on the cores, large tensors on disk.

Results depend on the sizes of the blocks (which the network decides), never on the number of cores.
"""

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

import numpy as np

from dpuflow.base.pixels import Scaling, scale_pixels
from dpuflow.base.threads import single_threaded_blas
from dpuflow.emulator.execute import core_count
from dpuflow.network import Layer, Network

BLOCK_VALUES = 1 << 21
"""Values that one layer reads and writes for the pictures of one block (8 MiB as float32)."""
MEMORY_BYTES = 256 << 20
"""What the tensors of one `Flow` may take before the next one lies in a file."""
IMAGE_BYTES = 64 << 20
"""The same for the pictures themselves."""
MOST_CORES = 8
"""Each core holds a block of its own."""

Result = TypeVar("Result")
_cores: ContextVar[int | None] = ContextVar("cores", default=None)


class Batch(Protocol):
    """What is asked of the network's input, float32 (N, ...): an array has it, and `Pictures`.

    A slice of it is what `engine.by_input` takes: an array, or one for each input by its name.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, which: slice, /) -> Any: ...


class Pixels(Protocol):
    """What is asked of uint8 images (N, H, W, C): an array has it, and what reads them from a file."""

    @property
    def dtype(self) -> np.dtype: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, which: slice, /) -> Any: ...


Images = Pixels | Mapping[str, Pixels]
"""Of the only input, or of each input by its name."""


def of_each(images: Any) -> list[Any]:
    """The images of every input."""
    return list(images.values()) if isinstance(images, Mapping) else [images]


def count(images: Images | Batch) -> int:
    """Number of images."""
    return len(next(iter(images.values()))) if isinstance(images, Mapping) else len(images)


class Pictures:
    """uint8 images that become the float network's input when they are asked for.

    Parameters
    ----------
    images : uint8 (N, H, W, C), or such for each input by its name; scaling : see `base.pixels`.
    """

    def __init__(self, images: Images, scaling: Scaling) -> None:
        self.images, self.scaling = images, scaling

    def __len__(self) -> int:
        return count(self.images)

    def __getitem__(self, which: slice) -> Any:
        """float32 (n, H, W, C), or {input's name: such an array}."""
        if isinstance(self.images, Mapping):
            return {name: scale_pixels(images[which], self.scaling) for name, images in self.images.items()}
        return scale_pixels(self.images[which], self.scaling)

    def some(self, most: int) -> "Pictures":
        """At most `most` pictures, evenly over all of them; itself if it has no more."""
        if len(self) <= most:
            return self
        return Pictures(chosen(self.images, evenly(len(self), most)), self.scaling)

    def first(self, most: int) -> "Pictures":
        """The first `most` pictures; itself if it has no more."""
        return self if len(self) <= most else Pictures(first(self.images, most), self.scaling)


class ByInput:
    """Arrays {input's name: (N, ...)} as a `Batch`."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.arrays = arrays

    def __len__(self) -> int:
        return count(self.arrays)

    def __getitem__(self, which: slice) -> dict[str, np.ndarray]:
        return {name: array[which] for name, array in self.arrays.items()}


def batch(x: Any) -> Batch:
    """An array, arrays by the names of inputs, or a `Batch`, as a `Batch`."""
    return ByInput(x) if isinstance(x, Mapping) else x


@contextmanager
def on_cores(threads: int | None = None) -> Iterator[None]:
    """Within it `in_blocks` uses so many cores (None: all that this process may use), and BLAS one.

    BLAS's own threads spend five times as long waiting for each other on small matrices as one thread
    needs alone (measured), and would add up sums in another order.
    """
    token = _cores.set(min(threads or core_count(), MOST_CORES))
    try:
        with single_threaded_blas():
            yield
    finally:
        _cores.reset(token)


def cores() -> int:
    """How many cores `in_blocks` uses; one outside of `on_cores`."""
    return _cores.get() or 1


def in_turns(function: Callable[[Any], Result], arguments: Sequence[Any]) -> list[Result]:
    """[function(argument), ...] in order, computed side by side."""
    if len(arguments) < 2 or cores() < 2:
        return [function(argument) for argument in arguments]
    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(function, arguments))


def in_blocks(function: Callable[[slice], Result], count: int, size: int) -> list[Result]:
    """[function(slice), ...] over `count` pictures, `size` at a time, in order."""
    return in_turns(function, [slice(start, min(start + size, count)) for start in range(0, count, size)])


def values_of(*layers: Layer) -> int:
    """Values per picture of these layers' outputs."""
    return sum(math.prod(layer.shape) for layer in layers)


def block_of(network: Network, layer: Layer) -> int:
    """Pictures at a time for one layer."""
    values = values_of(layer, *(network[name] for name in layer.inputs))
    return max(1, BLOCK_VALUES // values)


def block_of_all(network: Network) -> int:
    """Pictures at a time for a pass through the whole network, one block after the other."""
    largest = max(values_of(layer, *(network[name] for name in layer.inputs)) for layer in network.layers)
    return max(1, BLOCK_VALUES // largest)


def last_uses(network: Network) -> dict[str, int]:
    """Layer name -> index of the last layer that reads it, its own if none does."""
    uses = {layer.name: i for i, layer in enumerate(network.layers)}
    return uses | {name: i for i, layer in enumerate(network.layers) for name in layer.inputs}


def live_values(network: Network) -> int:
    """Most values per picture that a pass layer by layer holds at a time."""
    uses, live, most = last_uses(network), 0, 0
    for i, layer in enumerate(network.layers):
        live += values_of(layer)
        most = max(most, live)
        live -= values_of(*(network[name] for name, last in uses.items() if last == i))
    return most


def evenly(count: int, most: int) -> np.ndarray:
    """At most `most` of `count` pictures, evenly over all of them: their numbers, ascending."""
    return np.arange(count) if count <= most else np.arange(most) * count // most


class Chosen:
    """Some images, by their numbers."""

    def __init__(self, images: Pixels, numbers: np.ndarray) -> None:
        self.images, self.numbers = images, numbers

    @property
    def dtype(self) -> np.dtype:
        """Of the values."""
        return self.images.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, C)."""
        return (len(self.numbers), *self.images.shape[1:])

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, which: slice) -> Any:
        numbers = self.numbers[which]
        if len(numbers) and numbers[-1] - numbers[0] == len(numbers) - 1:
            return self.images[int(numbers[0]) : int(numbers[-1]) + 1]
        return np.concatenate([self.images[int(n) : int(n) + 1] for n in numbers])


def chosen(images: Images, numbers: np.ndarray) -> Images:
    """Some images by their numbers, of every input."""
    if isinstance(images, Mapping):
        return {name: Chosen(pixels, numbers) for name, pixels in images.items()}
    return Chosen(images, numbers)


def first(images: Images, most: int | None) -> Images:
    """The first `most` images; themselves if there are no more."""
    return images if most is None or count(images) <= most else chosen(images, np.arange(most))


def kept(images: Images) -> Images:
    """Images where they are read quickly and often: arrays as they are, others in memory or in a file."""
    if isinstance(images, Mapping):
        return {name: _kept(pixels) for name, pixels in images.items()}
    return _kept(images)


def _kept(images: Pixels) -> Pixels:
    if isinstance(images, np.ndarray):
        return images
    size = math.prod(images.shape[1:]) * images.dtype.itemsize
    if size * len(images) <= IMAGE_BYTES:
        return images[0 : len(images)]
    copy, step = FileArray(images.shape, images.dtype), max(1, IMAGE_BYTES // (8 * size))
    for start in range(0, len(images), step):
        copy[start : start + step] = images[start : start + step]
    return copy


def needed(network: Network) -> list[Layer]:
    """The quantized layers and what they are computed from: all but what ends in float on the CPU."""
    names: set[str] = set()
    for layer in reversed(network.layers):
        if layer.operator.quantized or layer.name in names:
            names |= {layer.name, *layer.inputs}
    return [layer for layer in network.layers if layer.name in names]


class FileArray:
    """An array (N, ...) in a nameless file, read and written by slices of its first axis."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.shape, self.dtype = shape, dtype
        self.row = math.prod(shape[1:]) * dtype.itemsize
        self._file = tempfile.TemporaryFile(prefix="dpuflow-")  # noqa: SIM115 - closed with the object

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: slice) -> np.ndarray:
        start, stop, step = which.indices(self.shape[0])
        if step != 1:
            raise ValueError("a file of tensors is read in runs only")
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        view, done = out.reshape(-1).view(np.uint8).data, 0
        while done < len(view):
            count = os.preadv(self._file.fileno(), [view[done:]], start * self.row + done)
            if not count:
                raise OSError("a temporary file is shorter than what was written to it")
            done += count
        return out

    def __setitem__(self, which: slice, values: np.ndarray) -> None:
        start = which.indices(self.shape[0])[0]
        flat = np.ascontiguousarray(values, self.dtype).reshape(-1)
        view, done = flat.view(np.uint8).data, 0
        while done < len(view):
            done += os.pwrite(self._file.fileno(), view[done:], start * self.row + done)

    def close(self) -> None:
        """Give the disk back."""
        self._file.close()


class Flow:
    """The tensors of many pictures on their way through a network, layer by layer.

    What the CPU computes in float is float32 in any case.

    What no later layer reads is forgotten; beyond MEMORY_BYTES a tensor lies in a file.

    Parameters
    ----------
    network : Network; count : pictures; dtype : of the tensors (int8: integers, float32: reals).
    """

    def __init__(self, network: Network, count: int, dtype: type) -> None:
        self.network, self.count, self.dtype = network, count, np.dtype(dtype)
        self._uses, self._index = (
            last_uses(network),
            {layer.name: i for i, layer in enumerate(network.layers)},
        )
        self._values: dict[str, np.ndarray | FileArray] = {}
        self._spare: list[np.ndarray] = []
        self._bytes = 0

    def __getitem__(self, name: str) -> np.ndarray | FileArray:
        """The tensor of a layer."""
        return self._values[name]

    def inputs(self, layer: Layer, which: slice) -> list[np.ndarray]:
        """What a layer reads of some pictures, float32 arrays (n, ...)."""
        return [np.asarray(self._values[name][which], np.float32) for name in layer.inputs]

    def real(self, layer: Layer, which: slice) -> np.ndarray:
        """What a layer makes in float32 of the tensors that it reads."""
        return layer.operator.real(self.inputs(layer, which), layer.weights, layer.bias)

    def compute(self, layer: Layer, function: Callable[[slice], np.ndarray]) -> None:
        """The tensor of a layer, function(pictures) -> array (n, ...); forgets what is read no more."""
        out = self._room(layer)

        def one(which: slice) -> None:
            values = function(which)  # a constant is one for all pictures
            out[which] = np.broadcast_to(values, (which.stop - which.start, *values.shape[1:]))

        in_blocks(one, self.count, block_of(self.network, layer))
        self._values[layer.name] = out
        index = self._index[layer.name]
        for name in [n for n in self._values if self._uses[n] <= index and n != layer.name]:
            self._forget(name)

    def _room(self, layer: Layer) -> np.ndarray | FileArray:
        shape = (self.count, *layer.shape)
        dtype = self.dtype if layer.operator.quantized else np.dtype(np.float32)
        size = math.prod(shape) * dtype.itemsize
        for spare in self._spare:
            if spare.nbytes >= size:
                self._spare = [other for other in self._spare if other is not spare]
                return spare[:size].view(dtype).reshape(shape)
        while self._spare and self._bytes + size > MEMORY_BYTES:
            self._bytes -= self._spare.pop(0).nbytes
        if self._bytes + size > MEMORY_BYTES:
            return FileArray(shape, dtype)
        self._bytes += size
        return np.empty(size, np.uint8).view(dtype).reshape(shape)

    def _forget(self, name: str) -> None:
        value = self._values.pop(name)
        if isinstance(value, FileArray):
            value.close()
            return
        while value.base is not None:
            value = value.base
        self._spare.append(value)
        self._spare.sort(key=lambda array: array.nbytes)

    def close(self) -> None:
        """Forget everything."""
        for name in list(self._values):
            self._forget(name)
        self._spare, self._bytes = [], 0
