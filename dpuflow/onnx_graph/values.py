"""What an ONNX tensor is while a graph is read, and what the handlers of its nodes share.

`handler(reader, node, inputs)` returns the node's value, or a list with one per output. An input that the
node leaves out is None.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, NoReturn, Protocol

import numpy as np

from dpuflow.network import Layer
from dpuflow.network.borders import zero_border
from dpuflow.network.pixels import as_pixel
from dpuflow.onnx_graph import axes as algebra
from dpuflow.onnx_graph.axes import Axes
from dpuflow.onnx_graph.graph import Node

NO_PAD = (0, 0, 0, 0)
NCHW = "(images, channels, height, width)"


@dataclass(frozen=True)
class Constant:
    """A value known while reading."""

    array: np.ndarray


@dataclass(frozen=True)
class Tensor:
    """Output of a layer, as ONNX's axes see it.

    axes : of the tensor behind the batch (`axes`).
    pad : (l, r, t, b) zeros around the map, still to be given to the layer that reads it.
    """

    layer: str
    axes: Axes
    pad: tuple[int, int, int, int] = NO_PAD


@dataclass(frozen=True)
class Joined:
    """Flattened maps, joined: of use to a dense layer alone, whose weights are ordered as they stand.

    layer : the concatenation. places : for each value in ONNX's order its place in the layer's output.
    """

    layer: str
    places: np.ndarray


Value = Constant | Tensor | Joined


class Reader(Protocol):
    """What handlers may ask of the `reader.ModelReader` that calls them.

    Attributes
    ----------
    where : the file. opset : version of ONNX's operators. outputs : output's name -> its tensor.
    layers : the layers so far, by name.
    """

    where: str
    opset: int
    outputs: dict[str, str]
    layers: dict[str, Layer]

    def fail(self, node: Node, problem: str) -> NoReturn:
        """Raise the UserError that names the file, the node and its operator."""

    def emit(
        self,
        node: Node,
        op: str,
        inputs: Iterable[str],
        shape: Iterable[int],
        weights: np.ndarray | None = None,
        bias: np.ndarray | None = None,
        suffix: str = "",
        **attrs: Any,
    ) -> Layer:
        """Append a layer that `node` computes; suffix : where it computes more than one."""

    def once(self, key: Any, make: Any) -> Layer:
        """make(), once for each key."""

    def shape(self, node: Node, tensor: str) -> tuple[int, ...]:
        """Shape of a tensor, the batch (1) first."""


def whole_map(layer: Layer) -> Tensor:
    """A layer's map as NCHW, a vector as it is."""
    order = (2, 0, 1) if len(layer.shape) == 3 else (0,)
    return Tensor(layer.name, algebra.whole(layer.shape, order))


def tensor(reader: Reader, node: Node, value: Value | None, what: str = "its input") -> Tensor:
    """`value`, which must be the output of a layer."""
    if isinstance(value, Joined):
        reader.fail(node, "reads flattened maps that are joined; only a dense layer can; join the maps")
    if not isinstance(value, Tensor):
        reader.fail(node, f"{what} is a constant or missing, expected what a layer computes")
    return value


def unpadded(reader: Reader, node: Node, value: Value | None) -> Tensor:
    """`tensor` without zeros that are still to be added: a layer adds them where they are pending."""
    found = tensor(reader, node, value)
    if found.pad == NO_PAD:
        return found
    return whole_map(with_zeros(reader, node, *feature_map(reader, node, found)))


def with_zeros(reader: Reader, node: Node, layer: Layer, pad: tuple[int, int, int, int]) -> Layer:
    """A map with zeros around it (l, r, t, b): a depthwise convolution with a single tap of one."""
    shape, weights, attrs = zero_border(layer.shape, pad)
    return reader.once(
        ("zeros", layer.name, pad),
        lambda: reader.emit(node, "depthwise_conv", [layer.name], shape, weights, suffix="zeros", **attrs),
    )


def constant(reader: Reader, node: Node, value: Value | None, what: str) -> np.ndarray:
    """The array of a constant; UserError for what a layer computes."""
    if not isinstance(value, Constant):
        reader.fail(node, f"{what} must be constant; export the network for inference, with fixed weights")
    return value.array


def float_constant(reader: Reader, node: Node, value: Value | None, what: str) -> np.ndarray:
    """The same as float32, not to be written to: large ones are not copied."""
    return constant(reader, node, value, what).astype(np.float32, copy=False)


def whole_numbers(
    reader: Reader, node: Node, inputs: Sequence[Value | None], index: int, key: str
) -> list[int] | None:
    """A list that is an attribute in old opsets and an input in later ones; None where it is left out."""
    if len(inputs) > index and inputs[index] is not None:
        return [int(n) for n in np.atleast_1d(constant(reader, node, inputs[index], key))]
    return [int(n) for n in node.attrs[key]] if key in node.attrs else None


def slices(
    reader: Reader, node: Node, inputs: Sequence[Value | None], rank: int
) -> list[tuple[int, int, int, int]]:
    """(axis behind the batch, 0 the first; start; end; step) of all that a Slice cuts, as the node has them.

    rank : axes of what is cut, with the batch's. A slice of the images is refused, unless it takes all.
    """
    starts, ends, axes, steps = (
        whole_numbers(reader, node, inputs, index, key)
        for index, key in enumerate(("starts", "ends", "axes", "steps"), 1)
    )
    if starts is None or ends is None:
        reader.fail(node, "without starts or ends")
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    found = []
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        axis %= rank
        if axis == 0:
            if (start, step) == (0, 1) and end > 2**30:
                continue
            reader.fail(node, "slices the batch")
        found.append((axis - 1, start, end, step))
    return found


def pieces(reader: Reader, node: Node, axis: int) -> list[tuple[int, int]]:
    """(start, end) of each output of a Split along an axis behind the batch, 0 the first."""
    sizes = [reader.shape(node, name)[axis + 1] for name in node.outputs]
    ends = list(accumulate(sizes))
    return list(zip([0, *ends], ends, strict=False))


def through(value: Tensor, layer: Layer) -> Tensor:
    """`layer`, which works on each value by itself, seen as its input `value` is."""
    return replace(value, layer=layer.name)


def flattened(reader: Reader, node: Node, value: Tensor) -> Tensor:
    """The same values of a layer that is a vector."""
    layer = reader.layers[value.layer]
    if len(layer.shape) == 1:
        return value
    shape = (math.prod(layer.shape),)
    flat = reader.once(
        ("flatten", layer.name), lambda: reader.emit(node, "flatten", [layer.name], shape, suffix="flatten")
    )
    return Tensor(flat.name, algebra.of_vector(value.axes, layer.shape))


def feature_map(reader: Reader, node: Node, value: Value | None) -> tuple[Layer, tuple[int, int, int, int]]:
    """(layer, zeros around it) behind a tensor that is to be a map (N, C, H, W).

    Channels in another order, or blocks of pixels among them (space to depth), become a convolution that
    gathers them, exactly; channels that became blocks of pixels (depth to space) a pixel shuffle.
    """
    found = tensor(reader, node, value)
    layer = reader.layers[found.layer]
    if len(found.axes) != 3:
        reader.fail(node, f"expects a map {NCHW}, found {len(found.axes)} axes behind the batch")
    if found == replace(whole_map(layer), pad=found.pad):
        return layer, found.pad
    if len(layer.shape) == 1:
        one_pixel = as_pixel(reader.layers, layer, lambda *both: _pixel(reader, node, *both))
        if one_pixel is None:
            reader.fail(node, "reads a vector as a map; the DPU cannot turn one into the other")
        moved = (algebra.simplified(atom._replace(axis=2) for atom in axis) for axis in found.axes)
        layer, found = one_pixel, Tensor(one_pixel.name, tuple(moved), found.pad)
        if found == replace(whole_map(layer), pad=found.pad):
            return layer, found.pad
    gathered = _gathered(reader, node, found, layer) or _spread(reader, node, found, layer)
    if gathered is None:
        reader.fail(
            node,
            f"reads a map whose axes were moved or joined; in front of it the order must be {NCHW} again",
        )
    return gathered, found.pad


def _pixel(reader, node, vector, new):
    return reader.once(
        ("pixel", vector.name),
        lambda: reader.emit(
            node, new.op, new.inputs, new.shape, new.weights, new.bias, suffix="pixel", **new.attrs
        ),
    )


def _gathered(reader, node, value, layer):
    """The layer that gathers channels in another order or blocks of pixels; None where the axes are none."""
    channels, rows, columns = value.axes
    height, width, depth = layer.shape
    block = height // algebra.size(rows), width // algebra.size(columns)
    if not all(block):
        return None
    for axis, atoms in ((0, rows), (1, columns)):
        step, count = block[axis], layer.shape[axis] // block[axis]
        if atoms != algebra.simplified([algebra.Atom(axis, count, step)]):
            return None
    places = algebra.positions([channels], layer.shape)
    if len(places) != block[0] * block[1] * depth:
        return None
    y, x, c = np.unravel_index(places, layer.shape)
    if (y >= block[0]).any() or (x >= block[1]).any() or len(set(places.tolist())) != len(places):
        return None
    weights = np.zeros((len(places), *block, depth), np.float32)
    weights[np.arange(len(places)), y, x, c] = 1
    shape = (height // block[0], width // block[1], len(places))
    window = {"kernel": block[::-1], "stride": block[::-1], "dilation": (1, 1), "pad": NO_PAD}
    return reader.once(
        ("gather", layer.name, value.axes),
        lambda: reader.emit(
            node, "conv", [layer.name], shape, weights, suffix="gather", **window, activation="NONE"
        ),
    )


def _spread(reader, node, value, layer):
    """The pixel shuffle that makes blocks of pixels of channels; None where the axes are none."""
    channels, rows, columns = value.axes
    height, width, depth = layer.shape
    block = algebra.size(rows) // height
    if block < 2 or depth % block**2 or not algebra.only_of(channels, 2):
        return None
    steps = []
    for axis, atoms in ((0, rows), (1, columns)):
        behind = [atom for atom in atoms if atom.axis == 2]
        whole = algebra.Atom(axis, layer.shape[axis])
        if len(behind) != 1 or atoms != algebra.simplified([whole, algebra.Atom(2, block, behind[0].stride)]):
            return None
        steps.append(behind[0].stride)
    first = algebra.positions([channels], layer.shape)
    inner = steps[0] * np.arange(block)[:, None] + steps[1] * np.arange(block)
    places = (first[:, None] + inner.reshape(-1)).reshape(-1)
    if sorted(places.tolist()) != list(range(depth)):
        return None

    def make() -> Layer:
        source = layer
        if places.tolist() != list(range(depth)):
            weights = np.zeros((depth, depth), np.float32)
            weights[range(depth), places] = 1
            source = channel_product(reader, node, layer, weights, suffix="order")
        shape = (height * block, width * block, depth // block**2)
        return reader.emit(
            node, "pixel_shuffle", [source.name], shape, suffix="shuffle", scale=block, upscale=True
        )

    return reader.once(("spread", layer.name, value.axes), make)


def channel_product(
    reader: Reader,
    node: Node,
    layer: Layer,
    weights: np.ndarray,
    bias: np.ndarray | None = None,
    suffix: str = "",
) -> Layer:
    """weights [OC, IC] on the channels of each pixel, or on a vector: 1x1 convolution or dense layer."""
    shape = (*layer.shape[:-1], len(weights))
    if len(layer.shape) == 1:
        return reader.emit(
            node, "dense", [layer.name], shape, weights, bias, suffix=suffix, activation="NONE"
        )
    window = {"kernel": (1, 1), "stride": (1, 1), "dilation": (1, 1), "pad": NO_PAD}
    kernel = np.ascontiguousarray(weights.reshape(len(weights), 1, 1, -1))
    return reader.emit(
        node, "conv", [layer.name], shape, kernel, bias, suffix=suffix, **window, activation="NONE"
    )


def per_channel(
    reader: Reader, node: Node, value: Tensor, array: np.ndarray, what: str = "a constant"
) -> np.ndarray | None:
    """One float32 number for each channel (last axis) of the layer behind `value`.

    array : broadcast to ONNX's axes of `value` (without the batch, or with a batch of 1). None where it
    varies along anything but channels.
    """
    layer = reader.layers[value.layer]
    last, rank = len(layer.shape) - 1, len(value.axes)
    array = np.asarray(array)
    if array.ndim == rank + 1 and array.shape[0] == 1:
        array = array[0]
    if array.ndim > rank:
        reader.fail(node, f"{what} of shape {array.shape} has more axes than what it meets")
    array = array.reshape((1,) * (rank - array.ndim) + array.shape)
    kept = []
    for length, axis in zip(array.shape, value.axes, strict=True):
        if length not in (1, algebra.size(axis)):
            reader.fail(node, f"{what} of shape {array.shape} meets axes {algebra.sizes(value.axes)}")
        if length > 1 and not algebra.only_of(axis, last):
            return None
        kept.append(axis if algebra.only_of(axis, last) else ())
    full = np.broadcast_to(array, algebra.sizes(tuple(kept))).reshape(-1)
    places = algebra.positions(kept, layer.shape)
    channels = layer.shape[-1]
    if len(places) != channels:  # part of the channels' order lies in an axis that does not vary
        return None if len(set(full.tolist())) > 1 else np.full(channels, full[0], np.float32)
    result = np.empty(channels, np.float32)
    result[places] = full
    return result


def pair(node: Node, key: str, default: Sequence[int]) -> tuple[int, int]:
    """(height, width) of a list attribute."""
    values = list(node.attrs.get(key, default))
    return int(values[0]), int(values[1])
