"""What a TensorFlow node computes, as far as reading a graph knows it, and the helpers of its handlers.

`handler(translator, node, inputs)` returns the node's value: a `Constant`, a `Tensor` (output of an emitted
layer), `Dims` (a shape vector that depends on the batch), `Random`, or a list with one of these per output.
Attributes that equal TensorFlow's default may be missing from a node; the defaults used
in the handlers are those of TensorFlow's op definitions.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Protocol

import numpy as np

from dpuflow.base.protobuf_pieces import Later
from dpuflow.network import Layer

NO_PAD = (0, 0, 0, 0)

Node = Any
"""A NodeDef message (`graph_def`)."""


@dataclass(frozen=True)
class Constant:
    """A value known while reading."""

    array: np.ndarray


class Stored(Constant):
    """A value that lies in the file: read into memory of its own whenever it is asked for."""

    _read: Callable[[], np.ndarray]

    def __init__(self, read: Callable[[], np.ndarray]) -> None:
        object.__setattr__(self, "_read", read)

    @property
    def array(self) -> np.ndarray:
        """The value."""
        return self._read()


@dataclass(frozen=True)
class Batch:
    """The size `times` x (number of images)."""

    times: int = 1


Size = int | Batch


@dataclass(frozen=True)
class Dims:
    """A shape vector, or one size (a scalar in TensorFlow), of whole numbers and `Batch`."""

    sizes: tuple[Size, ...]


@dataclass(frozen=True)
class Space:
    """SpaceToBatchND on its way through a convolution to BatchToSpaceND.

    block : (h, w); pad : (l, r, t, b) that it added; convolved : the convolution has been met.
    """

    block: tuple[int, int]
    pad: tuple[int, int, int, int]
    convolved: bool = False


@dataclass(frozen=True)
class Tensor:
    """Output of a layer, possibly on its way to the layer that can read it.

    pad : (l, r, t, b) zeros still to be given to the layer that reads it.
    view : the shape that the graph gives it, batch first, where it is not (images, *layer's shape):
        the same values in the same order.
    space : it is cut into the interleaved images of a dilated convolution.
    """

    layer: str
    pad: tuple[int, int, int, int] = NO_PAD
    view: tuple[Size, ...] | None = None
    space: Space | None = None

    def through(self, result: "Tensor") -> "Tensor":
        """`result` (of an op that works on each value by itself), seen as this one is."""
        return replace(result, view=self.view, space=self.space)


@dataclass(frozen=True)
class Random:
    """Random numbers, evenly distributed from `low` up to but not including `high` (dropout)."""

    low: float = 0.0
    high: float = 1.0


ANY = 2**31
"""As many inputs as there are."""


class Dead:
    """What `DEAD` is."""


DEAD = Dead()
"""The side of a Switch that is not taken."""

Value = Constant | Tensor | Dims | Random | Dead


class Translator(Protocol):
    """What handlers may ask of the `graph_reader.GraphTranslator` that calls them.

    Attributes
    ----------
    where : the file. contents : what its large constants' marks stand for (`large_graph.read_outline`).
    batch : number of images that the placeholder fixes, or None.
    layers : the layers so far, by name.
    cropped : names of dilated convolutions whose output has been cropped.
    binary_outputs : names of sigmoid nodes that were read as the probabilities of two classes.
    """

    where: str
    contents: Mapping[bytes, Later]
    batch: int | None
    layers: dict[str, Layer]
    cropped: set[str]
    binary_outputs: set[str]

    def fail(self, node: Node, problem: str) -> NoReturn:
        """Raise the UserError that names the graph, the node and its op."""

    def emit(
        self,
        node: Node,
        op: str,
        inputs: Iterable[str],
        shape: Iterable[int],
        weights: np.ndarray | None = None,
        bias: np.ndarray | None = None,
        **attrs: Any,
    ) -> Tensor:
        """Append the layer that `node` computes; returns its Tensor."""

    def layer(self, tensor: Tensor) -> Layer:
        """The layer that makes `tensor`."""

    def spend(self, node: Node, elements: int) -> None:
        """Account for the elements of a constant that has to be computed."""

    def note_fixed_batch(self, node: Node, first: int, times: int, others: Sequence[int]) -> None:
        """A reshape to a fixed number of images."""


def ints(node: Node, key: str, default: Iterable[int]) -> list[int]:
    return list(node.attr[key].list.i) if key in node.attr else list(default)


def text(node: Node, key: str, default: str) -> str:
    return node.attr[key].s.decode() if key in node.attr else default


def channels_last(translator: Translator, node: Node) -> None:
    if text(node, "data_format", "NHWC") not in ("NHWC", ""):
        translator.fail(node, "only NHWC layout works; export with channels_last")


def keeps_axes(node: Node) -> bool:
    """Whether a reduction keeps the reduced axes, with size 1."""
    return node.attr["keep_dims"].b


def tensor(translator: Translator, node: Node, value: Value) -> Tensor:
    """`value`, which must be the output of a layer."""
    if not isinstance(value, Tensor):
        translator.fail(node, "expected an activation, found a constant; run constant folding when freezing")
    return value


def each_value(translator: Translator, node: Node, value: Value) -> Layer:
    """The layer behind `value` for an op that treats every channel by itself, wherever the values stand."""
    value = tensor(translator, node, value)
    if value.pad != NO_PAD:
        translator.fail(node, "zero padding can only be absorbed by a convolution right behind it")
    layer = translator.layer(value)
    if value.view is not None and value.view[-1] != layer.shape[-1]:
        _refuse_view(translator, node, value)
    return layer


def activation(translator: Translator, node: Node, value: Value) -> Layer:
    """The layer behind `value`, which must be an activation without pending padding or reshape."""
    value = tensor(translator, node, value)
    layer = each_value(translator, node, value)
    if value.view is not None:
        _refuse_view(translator, node, value)
    if value.space is not None:
        translator.fail(
            node,
            "stands between SpaceToBatchND and BatchToSpaceND, where only one convolution with stride 1 "
            "and VALID padding and per-channel arithmetic can be (a dilated convolution)",
        )
    return layer


def _refuse_view(translator, node, value):
    shape = ", ".join("images" if n == Batch() else str(getattr(n, "times", n)) for n in value.view)
    translator.fail(
        node,
        f"reads the activation of shape {translator.layer(value).shape} reshaped to ({shape}); only "
        "flattening to a vector, axes of size 1 and dense layers over the channels of a map are supported",
    )


def feature_map(translator: Translator, node: Node, value: Value) -> Layer:
    if not isinstance(value, Tensor):
        translator.fail(node, "expected a feature map (H, W, C) as input")
    layer = translator.layer(value)
    if value.view is None and len(layer.shape) != 3:
        translator.fail(node, "expected a feature map (H, W, C) as input")
    if value.view is not None:
        _refuse_view(translator, node, value)
    return layer


def constant(translator: Translator, node: Node, value: Value, what: str) -> np.ndarray:
    if not isinstance(value, Constant):
        translator.fail(node, f"{what} must be constant; freeze the graph first")
    return value.array


def sizes(translator: Translator, node: Node, value: Value) -> tuple[Size, ...]:
    """A shape vector as a tuple of whole numbers and `Batch`."""
    if isinstance(value, Dims):
        return value.sizes
    return tuple(int(n) for n in np.atleast_1d(constant(translator, node, value, "a shape")))


def known(sizes: Sequence[Size], scalar: bool = False) -> Constant | Dims:
    """The shape vector as a value: a Constant where it does not depend on the batch."""
    if any(isinstance(size, Batch) for size in sizes):
        return Dims(tuple(sizes))
    return Constant(np.array(sizes[0] if scalar else sizes, np.int64))


def product(sizes: Iterable[Size]) -> Size | None:
    """Product of whole numbers and at most one `Batch`; None with two."""
    times = math.prod(size.times if isinstance(size, Batch) else size for size in sizes)
    batches = sum(isinstance(size, Batch) for size in sizes)
    return None if batches > 1 else Batch(times) if batches else times


def pseudo_node(node: Node, op: str, suffix: str) -> Node:
    """A node that `node` stands for, too: for a second layer that it makes."""
    return type(node)(name=f"{node.name}/{suffix}", op=op)
