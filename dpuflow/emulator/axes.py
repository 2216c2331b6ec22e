"""Axes of ops that the file describes incompletely: told by the shapes, or refused."""

from collections.abc import Sequence
from itertools import combinations

from dpuflow.base.errors import UserError
from dpuflow.emulator.attributes import inner_axis_of
from dpuflow.xir import Graph, Op
from dpuflow.xir.shapes import Shape


def norm_axis(op: Op, graph: Graph) -> tuple[int, bool]:
    """(axis, whether it is kept) of nndct_normalize: the Euclidean length along `dim`.

    It is what vai_q_pytorch makes of torch.norm.
    Attributes of an op that XIR does not define vary with the tool's version, so they are held against
    the stored shape: `dim` may be missing where the shape tells it, `p` where it is 2.
    """
    shape, result = graph.op(op.input_names[0]).tensor.shape, op.tensor.shape
    length = op.attrs.get("p", 2)
    if str(length).strip("'\"") not in ("2", "2.0", "fro"):
        raise UserError(f"op {op.name!r} ({op.type}): p is {length!r}; only the Euclidean norm is known")
    given = op.attrs.get("dim")
    axes = range(1, len(shape)) if given is None else given if isinstance(given, list) else [given]
    fitting = {
        axis % len(shape)
        for axis in axes
        if result in (_without(shape, axis % len(shape)), _without(shape, axis % len(shape), [1]))
    } - {0}
    if len(fitting) != 1:
        raise UserError(
            f"op {op.name!r} ({op.type}): dim {given} does not say how {shape} becomes {result}; "
            "one axis behind the batch is expected"
        )
    return fitting.pop(), len(result) == len(shape)


def _without(shape: Shape, axis: int, instead: Sequence[int] = ()) -> Shape:
    return (*shape[:axis], *instead, *shape[axis + 1 :])


def mean_axes(op: Op, graph: Graph) -> tuple[tuple[int, ...], bool]:
    """(axes, whether they are kept) of reduction_mean, and of aten::mean, which vai_q_pytorch passes through.

    aten::mean is no op of XIR and its file holds no attribute but the shape, so that the axes are those
    by which the input's shape becomes the output's: they must be the only ones.
    """
    shape, result = graph.op(op.input_names[0]).tensor.shape, op.tensor.shape
    if op.type == "reduction_mean":
        axes = tuple(sorted(inner_axis_of(op, axis, len(shape)) for axis in op.attr("axis")))
        return axes, op.attr("keep_dims")
    fitting: dict[tuple[int, ...], tuple[tuple[int, ...], bool]] = {}
    for count in range(1, len(shape)):
        for axes in combinations(range(1, len(shape)), count):
            for keep in (True, False):
                kept = [1] if keep else []
                reduced = tuple(n for i, size in enumerate(shape) for n in (kept if i in axes else [size]))
                if reduced == result:
                    # over an axis of size 1 there is nothing to average: all such readings are one
                    fitting.setdefault(tuple(axis for axis in axes if shape[axis] > 1), (axes, keep))
    if len(fitting) != 1:
        raise UserError(
            f"op {op.name!r} ({op.type}): {shape} may become {result} by {len(fitting)} choices of axes; the "
            "file does not say which are averaged: use a pooling layer instead"
        )
    return next(iter(fitting.values()))


def slice_bounds(op: Op, shape: Shape) -> tuple[tuple[int, int, int], ...]:
    """(begin, end, stride) of each axis behind the batch, as `range` takes them, of a strided slice.

    As TensorFlow and XIR read the attributes: negative places count from the end, places beyond an axis mean
    its end, axes that `begin` does not reach are whole, a bit of `begin_mask` or `end_mask` takes the place
    away. UserError for other masks, for a slice of the batch, and where the stored shape is another.
    """
    begin, end, strides = (list(op.attr(name)) for name in ("begin", "end", "strides"))
    if not len(begin) == len(end) == len(strides) <= len(shape) or any(step < 1 for step in strides):
        raise UserError(
            f"op {op.name!r} ({op.type}): begin {begin}, end {end}, strides {strides} of {list(shape)}; "
            "three equally long lists are expected, strides of at least 1"
        )
    for name in ("ellipsis_mask", "new_axis_mask", "shrink_axis_mask"):
        if op.attrs.get(name):
            raise UserError(f"op {op.name!r} ({op.type}): {name} {op.attrs[name]} is not known")
    bounds = []
    for axis, size in enumerate(shape):
        given = axis < len(begin)
        first = begin[axis] if given and not op.attrs.get("begin_mask", 0) >> axis & 1 else None
        last = end[axis] if given and not op.attrs.get("end_mask", 0) >> axis & 1 else None
        bounds.append(slice(first, last, strides[axis] if given else 1).indices(size))
    found = tuple(len(range(*each)) for each in bounds)
    if found != tuple(op.tensor.shape) or found[0] != shape[0]:
        raise UserError(
            f"op {op.name!r} ({op.type}): begin {begin}, end {end}, strides {strides} of {list(shape)} gives "
            f"{list(found)}; its shape is {list(op.tensor.shape)}, and the batch stays whole"
        )
    return tuple(bounds[1:])
