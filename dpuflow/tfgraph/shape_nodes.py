"""TensorFlow ops on constants, shapes and the order of values: one handler per op (see `values`).

A reshape makes no layer unless it flattens a map to a vector: it is noted on the value (`Tensor.view`)
until an op reads it that can (a dense layer over the channels of a map) or another reshape undoes it.
"""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from dpuflow.tfgraph.graph_def import DT_FLOAT, DTYPES, stored_array, tensor_to_array
from dpuflow.tfgraph.rearranging_nodes import moved_axes, pixels, select_channels, with_zeros
from dpuflow.tfgraph.values import (
    ANY,
    NO_PAD,
    Batch,
    Constant,
    Dims,
    Node,
    Size,
    Stored,
    Tensor,
    Translator,
    Value,
    activation,
    constant,
    ints,
    known,
    product,
    pseudo_node,
    sizes,
)

FLOATS = (DT_FLOAT, 14, 19)
"""float32, and the shorter bfloat16 and half of mixed precision."""


def _const(translator, node, inputs):
    tensor = node.attr["value"].tensor
    if tensor.dtype == 7:  # strings serve assertions only
        return Constant(np.zeros(0))
    what = f"{translator.where}: node {node.name!r}"
    content = translator.contents.get(tensor.tensor_content)
    if content is not None:
        return Stored(partial(stored_array, tensor, content, what))
    return Constant(tensor_to_array(tensor, what, lambda elements: translator.spend(node, elements)))


def _pass(translator, node, inputs):
    return inputs[0]


def _pass_all(translator, node, inputs):
    """IdentityN, which a function with a gradient of its own leaves behind (swish)."""
    return list(inputs)


def _cast(translator, node, inputs):
    """A constant becomes the type. Activations are float32 here, which holds what half and bfloat16 hold."""
    code = node.attr["DstT"].type if "DstT" in node.attr else DT_FLOAT
    if isinstance(inputs[0], Constant) and code != 14:  # NumPy has no bfloat16; the float32 is closer
        if code not in DTYPES:
            translator.fail(node, f"data type {code} has no numeric value")
        return Constant(inputs[0].array.astype(DTYPES[code][0]))
    if isinstance(inputs[0], Tensor) and code not in FLOATS:
        translator.fail(node, "only a cast to float is supported")
    return inputs[0]


# -- shapes --------------------------------------------------------------------------------


def _shape(translator, node, inputs):
    if isinstance(inputs[0], Constant):
        return Constant(np.array(inputs[0].array.shape, np.int64))
    view = inputs[0].view if isinstance(inputs[0], Tensor) else None
    return known(view or (Batch(), *activation(translator, node, inputs[0]).shape))


def _slice_of(translator, node, inputs, rank):
    """The index that a StridedSlice means on a value of `rank` axes: a tuple of slices and whole numbers."""
    begin, end, step = (
        np.atleast_1d(constant(translator, node, v, "slice bounds")).astype(np.int64) for v in inputs[1:4]
    )
    masks = {
        key: node.attr[f"{key}_mask"].i for key in ("begin", "end", "shrink_axis", "ellipsis", "new_axis")
    }
    if masks["new_axis"]:
        translator.fail(node, "slices that add an axis are not supported; use a reshape")
    index, skipped = [], 0
    for k in range(len(begin)):
        if masks["ellipsis"] >> k & 1:
            skipped = rank - len(begin) + 1
            index += [slice(None)] * skipped
        elif masks["shrink_axis"] >> k & 1:
            index.append(int(begin[k]))
        else:
            first = None if masks["begin"] >> k & 1 else int(begin[k])
            last = None if masks["end"] >> k & 1 else int(end[k])
            index.append(slice(first, last, int(step[k])))
    if len(index) > rank:
        translator.fail(node, f"slices {len(index)} axes of {rank}")
    return tuple(index) + (slice(None),) * (rank - len(index))


def _strided_slice(translator, node, inputs):
    value = inputs[0]
    if isinstance(value, Constant):
        return Constant(value.array[_slice_of(translator, node, inputs, value.array.ndim)])
    if isinstance(value, Dims):
        (index,) = _slice_of(translator, node, inputs, 1)
        found = value.sizes[index]
        return known(found if isinstance(index, slice) else (found,), scalar=not isinstance(index, slice))
    if isinstance(value, Tensor) and value.pad != NO_PAD and value.view is None:  # zeros that are cut again
        value = Tensor(with_zeros(translator, node, translator.layer(value), value.pad).name)
    layer = activation(translator, node, value)
    *others, index = _slice_of(translator, node, inputs, len(layer.shape) + 1)
    channels = np.arange(layer.shape[-1])[index]
    if any(not isinstance(each, slice) for each in others[1:]):
        translator.fail(node, "takes one row or column without its axis; slice with 0:1 instead")
    if others[0] != slice(None) and others[0] not in (slice(0, None, 1), slice(None, None, 1)):
        translator.fail(node, "slices the batch; only channels, rows and columns of a map can be sliced")
    if not channels.ndim or not channels.size:
        translator.fail(node, "takes a single channel without its axis, or none; slice with 0:1 instead")
    if len(others) == 3:
        cut = pseudo_node(node, "StridedSlice", "pixels/StridedSlice")
        layer = translator.layer(pixels(translator, cut, layer, others[1], others[2]))
    return select_channels(translator, node, layer, channels)


def _reverse(translator, node, inputs):
    axes = [int(a) for a in np.atleast_1d(constant(translator, node, inputs[1], "the axes"))]
    if isinstance(inputs[0], Constant):
        return Constant(np.flip(inputs[0].array, axes))
    layer = activation(translator, node, inputs[0])
    rank = len(layer.shape) + 1
    if [a % rank for a in axes] != [rank - 1]:
        translator.fail(node, f"reverses the axes {axes}; only the channels (the last axis) can be reversed")
    return select_channels(translator, node, layer, range(layer.shape[-1])[::-1])


def _gather(translator, node, inputs):
    value, indices = inputs[0], constant(translator, node, inputs[1], "the indices")
    axis = int(constant(translator, node, inputs[2], "the axis")) if len(inputs) > 2 else 0
    if isinstance(value, Constant):
        return Constant(np.take(value.array, indices, axis))
    if isinstance(value, Dims):
        return known([value.sizes[int(i)] for i in np.atleast_1d(indices)], scalar=not indices.ndim)
    layer = activation(translator, node, value)
    rank = len(layer.shape) + 1
    if axis % rank != rank - 1 or indices.ndim != 1 or not indices.size:
        translator.fail(node, f"gathers along axis {axis}; only channels (the last axis) can be picked")
    return select_channels(translator, node, layer, indices)


def _split(translator, node, inputs):
    """Equal parts of the channels, as of a grouped convolution written out."""
    axis, parts = int(constant(translator, node, inputs[0], "the axis")), node.attr["num_split"].i
    if isinstance(inputs[1], Constant):
        return [Constant(part) for part in np.split(inputs[1].array, parts, axis)]
    layer = activation(translator, node, inputs[1])
    rank, channels = len(layer.shape) + 1, layer.shape[-1]
    if axis % rank != rank - 1 or not 0 < parts <= channels or channels % parts:
        translator.fail(
            node, f"splits axis {axis} into {parts}; only channels into equal parts are supported"
        )
    return _parts(translator, node, layer, [channels // parts] * parts)


def _parts(translator, node, layer, counts):
    """Choices of so many channels each, one behind the other."""
    ends = np.cumsum(counts).tolist()
    return [
        select_channels(translator, pseudo_node(node, "Split", str(k)), layer, range(end - count, end))
        for k, (end, count) in enumerate(zip(ends, counts, strict=True))
    ]


def _split_v(translator, node, inputs):
    """Parts of given sizes, one of which may be -1."""
    sizes = [int(n) for n in constant(translator, node, inputs[1], "the sizes").reshape(-1)]
    axis = int(constant(translator, node, inputs[2], "the axis"))
    if isinstance(inputs[0], Constant):
        length = inputs[0].array.shape[axis]
    else:
        layer = activation(translator, node, inputs[0])
        length, rank = layer.shape[-1], len(layer.shape) + 1
        if axis % rank != rank - 1:
            translator.fail(node, f"splits axis {axis}; only channels can be split")
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = length - sum(sizes) - 1
    if min(sizes, default=0) < 1 or sum(sizes) != length:
        translator.fail(node, f"splits {length} into parts of {sizes}")
    if isinstance(inputs[0], Constant):
        return [Constant(part) for part in np.split(inputs[0].array, np.cumsum(sizes)[:-1], axis)]
    return _parts(translator, node, layer, sizes)


def _pack(translator, node, inputs):
    if all(isinstance(value, Constant) for value in inputs):
        translator.spend(node, sum(value.array.size for value in inputs))
        return Constant(np.stack([value.array for value in inputs], node.attr["axis"].i))
    parts = [sizes(translator, node, value) for value in inputs]
    if any(len(part) != 1 for part in parts):
        translator.fail(node, "only single sizes can be packed into a shape")
    return known(tuple(size for (size,) in parts))


def _prod(translator, node, inputs):
    constant(translator, node, inputs[1], "the axes")
    if isinstance(inputs[0], Constant):
        if inputs[0].array.ndim > 1:
            translator.fail(node, "only the product of a whole vector is supported")
        return Constant(np.prod(inputs[0].array))
    result = product(sizes(translator, node, inputs[0]))
    if result is None:
        translator.fail(node, "multiplies the batch size with itself")
    return known((result,), scalar=True)


# -- reshapes ------------------------------------------------------------------------------


def _leading(translator, node, total, first, others):
    """(first size, other sizes) of a reshape, as `Batch` and whole numbers: -1 and a fixed batch resolved.

    total : values per image.
    """
    unknown = others.count(-1) + (first == -1)
    rest = math.prod(size for size in others if size != -1)
    if (
        unknown > 1
        or any(isinstance(size, Batch) or (size < 1 and size != -1) for size in others)
        or not rest
    ):
        translator.fail(node, f"reshape to {_shown((first, *others))}")
    if -1 in others:
        fixed = not isinstance(first, Batch)
        times = max(1, first // (translator.batch or first)) if fixed else first.times
        others = tuple(total // (rest * times) if size == -1 else size for size in others)
        rest = math.prod(others)
    if not rest or total % rest:
        translator.fail(node, f"reshape of {total} values per image to {_shown((first, *others))}")
    times = total // rest
    if isinstance(first, Batch) and first.times != times:
        translator.fail(node, f"reshape of {total} values per image to {_shown((first, *others))}")
    if not isinstance(first, Batch) and first != -1:
        if translator.batch is not None and first != translator.batch * times:
            translator.fail(
                node, f"reshape of {total} values for each of {translator.batch} images to {first} rows"
            )
        translator.note_fixed_batch(node, first, times, others)
    return Batch(times), others


def _shown(sizes):
    return tuple(f"{n.times} x images" if isinstance(n, Batch) else n for n in sizes)


def reshape_to(translator: Translator, node: Node, value: Value, sizes: Sequence[Size]) -> Tensor:
    """`value` in the shape `sizes` (batch first): a view, a flatten layer, or what was before a flatten."""
    if not sizes:
        translator.fail(node, "reshape to a scalar")
    if isinstance(value, Tensor) and value.view is not None and value.space is None:
        layer = translator.layer(value)
    else:
        layer = activation(translator, node, value)
    view = _leading(translator, node, math.prod(layer.shape), sizes[0], tuple(sizes[1:]))
    view = (view[0], *view[1])
    while layer.op == "flatten" and view != (Batch(), *layer.shape):
        layer = translator.layers[layer.inputs[0]]
    if view == (Batch(), *layer.shape):
        return Tensor(layer.name)
    if view == (Batch(), math.prod(layer.shape)):
        return translator.emit(node, "flatten", [layer.name], view[1:])
    return Tensor(layer.name, view=view)


def _reshape(translator, node, inputs):
    if isinstance(inputs[0], Constant):
        return Constant(inputs[0].array.reshape(sizes(translator, node, inputs[1])))
    return reshape_to(translator, node, inputs[0], sizes(translator, node, inputs[1]))


def _viewed(translator, node, value):
    """Shape of an activation as the graph has it, batch first."""
    if isinstance(value, Tensor) and value.view is not None:
        return value.view
    return (Batch(), *activation(translator, node, value).shape)


def _squeeze(translator, node, inputs):
    axes = ints(node, "squeeze_dims", []) or ints(node, "axis", [])
    if isinstance(inputs[0], Constant):
        return Constant(np.squeeze(inputs[0].array, tuple(axes) or None))
    shape = _viewed(translator, node, inputs[0])
    axes = {a % len(shape) for a in axes} or {i for i, n in enumerate(shape) if n == 1}
    if any(shape[axis] != 1 for axis in axes):
        translator.fail(node, f"removes axes {sorted(axes)} of {_shown(shape)}, which are not all of size 1")
    return reshape_to(translator, node, inputs[0], [n for i, n in enumerate(shape) if i not in axes])


def _expand_dims(translator, node, inputs):
    axis = int(constant(translator, node, inputs[1], "the axis"))
    if isinstance(inputs[0], Constant):
        return Constant(np.expand_dims(inputs[0].array, axis))
    shape = list(_viewed(translator, node, inputs[0]))
    axis %= len(shape) + 1
    if not axis:
        translator.fail(node, "adds an axis in front of the batch")
    shape.insert(axis, 1)
    return reshape_to(translator, node, inputs[0], shape)


def _transpose(translator, node, inputs):
    order = [int(n) for n in constant(translator, node, inputs[1], "the order of axes")]
    if isinstance(inputs[0], Constant):
        return Constant(inputs[0].array.transpose(order))
    shape = _viewed(translator, node, inputs[0])
    if sorted(order) != list(range(len(shape))):
        translator.fail(node, f"orders {len(shape)} axes as {order}")
    moved = moved_axes(translator, node, inputs[0], shape, order)
    if moved is not None:
        return moved
    # axes of size 1 may go anywhere: the values stay in their order
    if [axis for axis in order if shape[axis] != 1] != [i for i, n in enumerate(shape) if n != 1] or order[0]:
        translator.fail(
            node, f"changes the order of the axes to {order}; train and export with channels_last (NHWC)"
        )
    return reshape_to(translator, node, inputs[0], [shape[axis] for axis in order])


INPUTS = {
    **dict.fromkeys(("ExpandDims", "Gather", "Prod", "Reshape", "ReverseV2", "Split", "Transpose"), (2, 2)),
    "Const": (0, 0),
    "GatherV2": (3, 3),
    "IdentityN": (1, ANY),
    "Pack": (1, ANY),
    "SplitV": (3, 3),
    "StridedSlice": (4, 4),
}
"""op -> (fewest, most) inputs; an op that is not here has one."""

HANDLERS = {
    "Cast": _cast,
    "CheckNumerics": _pass,
    "Const": _const,
    "ExpandDims": _expand_dims,
    "Gather": _gather,
    "GatherV2": _gather,
    "Identity": _pass,
    "IdentityN": _pass_all,
    "Pack": _pack,
    "Prod": _prod,
    "Reshape": _reshape,
    "ReverseV2": _reverse,
    "Shape": _shape,
    "Snapshot": _pass,
    "Split": _split,
    "SplitV": _split_v,
    "Squeeze": _squeeze,
    "StopGradient": _pass,
    "StridedSlice": _strided_slice,
    "Transpose": _transpose,
}
