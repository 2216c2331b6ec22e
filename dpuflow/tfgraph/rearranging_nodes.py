"""TensorFlow ops that move values between pixels and channels, or take some pixels: one handler per op.

Channels in another order are a choice of channels, which mostly goes into the weights before or behind it
(`merging`); pixels that are taken are a depthwise convolution with one weight of 1, which is exact.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from dpuflow.network import Layer
from dpuflow.network.borders import zero_border
from dpuflow.network.pixels import as_pixel
from dpuflow.tfgraph.values import (
    NO_PAD,
    Batch,
    Node,
    Tensor,
    Translator,
    Value,
    channels_last,
    feature_map,
    pseudo_node,
)


def with_zeros(translator: Translator, node: Node, layer: Layer, pad: tuple[int, int, int, int]) -> Layer:
    """A map with zeros around it (l, r, t, b): a depthwise convolution with a single tap of one."""
    shape, weights, attrs = zero_border(layer.shape, pad)
    padded = pseudo_node(node, "DepthwiseConv2dNative", "padded/DepthwiseConv2dNative")
    made = translator.emit(padded, "depthwise_conv", [layer.name], shape, weights, **attrs)
    return translator.layer(made)


def select_channels(translator: Translator, node: Node, layer: Layer, channels: Iterable[int]) -> Tensor:
    """The channels of `layer` with these numbers: a convolution that `selection.push_down` takes away."""
    channels = [int(channel) for channel in channels]
    if channels == list(range(layer.shape[-1])):
        return Tensor(layer.name)
    translator.spend(node, len(channels) * layer.shape[-1])
    weights = np.zeros((len(channels), layer.shape[-1]), np.float32)
    weights[range(len(channels)), channels] = 1
    return channel_product(translator, node, layer, weights)


def channel_product(
    translator: Translator, node: Node, layer: Layer, weights: np.ndarray, bias: np.ndarray | None = None
) -> Tensor:
    """weights [OC, IC] on the channels of each pixel, or on a vector: 1x1 convolution or dense layer."""
    shape = (*layer.shape[:-1], len(weights))
    if len(layer.shape) == 1:
        return translator.emit(node, "dense", [layer.name], shape, weights, bias, activation="NONE")
    attrs = {"kernel": (1, 1), "stride": (1, 1), "dilation": (1, 1), "pad": (0, 0, 0, 0)}
    weights = np.ascontiguousarray(weights.reshape(len(weights), 1, 1, -1))
    return translator.emit(node, "conv", [layer.name], shape, weights, bias, **attrs, activation="NONE")


def map_of(translator: Translator, node: Node, value: Value) -> Layer:
    """`values.feature_map`, also of a vector seen as a square map (an autoencoder's middle)."""
    view = value.view if isinstance(value, Tensor) else None
    if not isinstance(value, Tensor) or view is None or len(view) != 4 or view[1] != view[2]:
        return feature_map(translator, node, value)
    vector, (_, block, _, channels) = translator.layer(value), view
    if len(vector.shape) != 1 or not isinstance(block, int) or not isinstance(channels, int):
        return feature_map(translator, node, value)

    def emit(_: Layer, new: Layer) -> Layer:
        number = len(translator.layers)
        named = pseudo_node(node, "Conv2D", f"pixel{number}/Conv2D")
        made = translator.emit(named, new.op, new.inputs, new.shape, new.weights, new.bias, **new.attrs)
        return translator.layer(made)

    pixel = as_pixel(translator.layers, vector, emit)
    if pixel is None or block == 1:
        return pixel or feature_map(translator, node, value)
    named = pseudo_node(node, "DepthToSpace", "map/DepthToSpace")
    order = np.arange(block**2 * channels).reshape(block, block, channels)
    return translator.layer(to_pixels(translator, named, pixel, block, order))


def to_pixels(translator: Translator, node: Node, layer: Layer, block: int, order: np.ndarray) -> Tensor:
    """Channels become blocks of pixels; order : [block, block, C], which channel each value is."""
    height, width, channels = layer.shape
    wanted = np.moveaxis(order, 2, 0).reshape(-1)  # the operator has pixels fastest
    shuffled = pseudo_node(node, "Gather", "order/Gather")
    source = select_channels(translator, shuffled, layer, wanted.tolist())
    shape = (height * block, width * block, channels // block**2)
    return translator.emit(node, "pixel_shuffle", [source.layer], shape, scale=block, upscale=True)


def to_channels(translator: Translator, node: Node, layer: Layer, block: int, order: np.ndarray) -> Tensor:
    """Blocks of pixels become channels; order : which (row, column, channel), counted so, each one is."""
    height, width, channels = layer.shape
    shape = (height // block, width // block, channels * block**2)
    shuffle = pseudo_node(node, "SpaceToDepth", "blocks/SpaceToDepth")
    name = translator.emit(shuffle, "pixel_shuffle", [layer.name], shape, scale=block, upscale=False).layer
    place, channel = np.divmod(order.reshape(-1), channels)
    return select_channels(translator, node, translator.layers[name], channel * block**2 + place)


def _block(translator, node, layer):
    channels_last(translator, node)
    return node.attr["block_size"].i, layer.shape


def _space_to_depth(translator, node, inputs):
    layer = feature_map(translator, node, inputs[0])
    block, (height, width, channels) = _block(translator, node, layer)
    if block < 1 or height % block or width % block:
        translator.fail(node, f"blocks of {block} in a map of {height} x {width}")
    return to_channels(translator, node, layer, block, np.arange(channels * block**2))


def _depth_to_space(translator, node, inputs):
    layer = feature_map(translator, node, inputs[0])
    block, (_, _, channels) = _block(translator, node, layer)
    if block < 1 or channels % block**2:
        translator.fail(node, f"{channels} channels into blocks of {block} x {block} pixels")
    order = np.arange(channels).reshape(block, block, -1)
    return to_pixels(translator, node, layer, block, order)


# -- what transposes of a reshaped map are ---------------------------------------------------


def moved_axes(
    translator: Translator, node: Node, value: Value, shape: Sequence[int | Batch], order: Sequence[int]
) -> Tensor | None:
    """A transpose of a map that was cut into blocks, as a choice of channels or a pixel shuffle; else None.

    shape : the map as it was reshaped, batch first. Cut channels in another order (channel shuffle); blocks
    of channels between rows and columns (depth to space); rows and columns of blocks behind both (space to
    depth).
    """
    if not isinstance(value, Tensor) or value.space is not None or shape[0] != Batch():
        return None
    layer = translator.layer(value)
    if len(layer.shape) != 3:
        return None
    height, width, channels = layer.shape
    sizes = [int(n) if isinstance(n, int) else -1 for n in shape]
    moved = tuple(shape[axis] for axis in order)
    if sizes[1:3] == [height, width] and list(order[:3]) == [0, 1, 2]:
        places = np.arange(channels).reshape(sizes[3:]).transpose([axis - 3 for axis in order[3:]])
        return _seen(select_channels(translator, node, layer, places.reshape(-1).tolist()), moved)
    if len(shape) != 6:
        return None
    if sizes[1:3] == [height, width] and order[1] == 1 and order[3] == 2:
        places = np.arange(channels).reshape(sizes[3:])
        places = places.transpose([axis - 3 for axis in (order[2], order[4], order[5])])
        if places.shape[0] == places.shape[1] > 1:
            return _seen(to_pixels(translator, node, layer, places.shape[0], places), moved)
    block = sizes[2]
    cut = [height // block, block, width // block, block, channels]
    if sizes[1:] == cut and height % block == width % block == 0 and list(order[:3]) == [0, 1, 3]:
        places = np.arange(channels * block**2).reshape(block, block, channels)
        places = places.transpose([(2, 4, 5).index(axis) for axis in order[3:]])
        return _seen(to_channels(translator, node, layer, block, places), moved)
    return None


def _seen(tensor, view):
    return Tensor(tensor.layer, view=view)


# -- pixels ---------------------------------------------------------------------------------


def pixels(translator: Translator, node: Node, layer: Layer, rows: slice, columns: slice) -> Tensor:
    """Some rows and columns of a map, at even distances."""
    picks = [range(size)[cut] for size, cut in zip(layer.shape, (rows, columns), strict=False)]
    if any(not len(pick) or pick.step < 1 for pick in picks):
        translator.fail(node, "takes rows or columns backwards, or none")
    if all(len(pick) == size for pick, size in zip(picks, layer.shape, strict=False)):
        return Tensor(layer.name)
    shape = (len(picks[0]), len(picks[1]), layer.shape[2])
    steps = [pick.step if len(pick) > 1 else size for pick, size in zip(picks, layer.shape, strict=False)]
    if all(
        pick.start == 0 and len(pick) == -(-size // step)
        for pick, size, step in zip(picks, layer.shape, steps, strict=False)
    ):
        return translator.emit(node, "downsample", [layer.name], shape, factor=(steps[1], steps[0]))
    kernel = [
        max(pick.start + 1, size - len(pick) * step + 1)
        for pick, size, step in zip(picks, layer.shape, steps, strict=False)
    ]
    weights = np.zeros((1, *kernel, layer.shape[2]), np.float32)
    weights[0, picks[0].start, picks[1].start] = 1
    return translator.emit(
        node,
        "depthwise_conv",
        [layer.name],
        shape,
        weights,
        kernel=(kernel[1], kernel[0]),
        stride=(steps[1], steps[0]),
        dilation=(1, 1),
        pad=NO_PAD,
        activation="NONE",
    )


HANDLERS = {"DepthToSpace": _depth_to_space, "SpaceToDepth": _space_to_depth}
