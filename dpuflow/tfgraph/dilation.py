"""A dilated convolution in the form that TensorFlow gives it: SpaceToBatchND - Conv2D - BatchToSpaceND.

SpaceToBatchND pads the map and cuts it into block_h x block_w interleaved images, on which a convolution
with stride 1 and no padding is, on the whole map, one with dilation (block_h, block_w) and that padding;
BatchToSpaceND puts the images together and crops. Per-channel arithmetic (a bias, ReLU) may stand between.
Cropping the end of a stride-1 output by n is the same as padding the end of the input by n less.
"""

from dataclasses import replace

import numpy as np

from dpuflow.tfgraph.values import NO_PAD, Node, Space, Tensor, Translator, activation, constant, text

THROUGH = ("batch_norm", "relu", "relu6", "leaky_relu")
"""Layers that may stand between the convolution and BatchToSpaceND."""


def _amounts(translator, node, inputs, what):
    """block (h, w) and the (l, r, t, b) of the paddings or crops."""
    block, amounts = (constant(translator, node, v, what) for v in inputs[1:])
    if block.shape == (1,) and amounts.shape == (1, 2):  # the height alone
        block, amounts = np.append(block, 1), np.append(amounts, [[0, 0]], axis=0)
    if block.shape != (2,) or amounts.shape != (2, 2) or block.min() < 1 or amounts.min() < 0:
        translator.fail(node, f"blocks {block.tolist()}, {what} {amounts.tolist()}: expected (2,) and (2, 2)")
    (top, bottom), (left, right) = amounts.tolist()
    return tuple(int(n) for n in block), tuple(int(n) for n in (left, right, top, bottom))


def _space_to_batch(translator, node, inputs):
    block, pad = _amounts(translator, node, inputs, "the paddings")
    value = inputs[0]
    if not isinstance(value, Tensor):
        translator.fail(node, "expected a feature map (H, W, C) as input")
    layer = activation(translator, node, replace(value, pad=NO_PAD))
    if len(layer.shape) != 3:
        translator.fail(node, "expected a feature map (H, W, C) as input")
    pad = tuple(a + b for a, b in zip(pad, value.pad, strict=True))
    height, width = layer.shape[0] + pad[2] + pad[3], layer.shape[1] + pad[0] + pad[1]
    if height % block[0] or width % block[1]:
        translator.fail(node, f"a padded map of {height} x {width} does not divide into blocks of {block}")
    return Tensor(layer.name, space=Space(block, pad))


def dilated(translator: Translator, node: Node, space: Space) -> tuple[int, int]:
    """The dilation (h, w) that a convolution node gets by standing in `space`."""
    ones = [[1, 1, 1, 1], []]
    if (
        space.convolved
        or text(node, "padding", "VALID") != "VALID"
        or list(node.attr["strides"].list.i) not in ones
        or list(node.attr["dilations"].list.i) not in ones
    ):
        translator.fail(
            node,
            "between SpaceToBatchND and BatchToSpaceND only one convolution with stride 1, without dilation "
            "and with VALID padding can stand",
        )
    return space.block


def in_space(value: Tensor, result: Tensor) -> Tensor:
    """`result` of a convolution on `value`: still cut into blocks where that is."""
    return result if value.space is None else replace(result, space=replace(value.space, convolved=True))


def _batch_to_space(translator, node, inputs):
    block, crops = _amounts(translator, node, inputs, "the crops")
    value = inputs[0]
    space = value.space if isinstance(value, Tensor) else None
    if space is None or not space.convolved or space.block != block:
        translator.fail(node, "has no SpaceToBatchND and convolution with the same blocks before it")
    chain = [translator.layer(value)]
    while chain[-1].op in THROUGH:
        chain.append(translator.layers[chain[-1].inputs[0]])
    if any(crops):
        _crop(translator, node, chain, crops)
    return Tensor(value.layer)


def _crop(translator, node, chain, crops):
    """Take `crops` off the output of the convolution at the end of `chain` and of all that follow it."""
    convolution, names = chain[-1], {layer.name for layer in chain}
    others = [layer for layer in translator.layers.values() if layer.name not in names]
    readers = any(names & set(layer.inputs) for layer in others)
    pad = tuple(a - b for a, b in zip(convolution.attrs["pad"], crops, strict=True))
    if min(pad) < 0 or readers or convolution.name in translator.cropped:
        translator.fail(node, f"crops {crops} off a dilated convolution: more than its padding, or twice")
    translator.cropped.add(convolution.name)
    convolution.attrs["pad"] = pad
    height, width = convolution.shape[:2]
    size = height - crops[2] - crops[3], width - crops[0] - crops[1]
    if min(size) < 1:
        translator.fail(node, "crops everything away")
    for layer in chain:
        layer.shape = (*size, layer.shape[-1])


SPACE_NODES = {"BatchToSpaceND": _batch_to_space, "SpaceToBatchND": _space_to_batch}
"""op -> handler."""
