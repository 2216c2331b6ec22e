"""The values of a quantized graph while `quantized_reading` reads it: their layers, their rounding."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.numerics import Grid
from dpuflow.network import Layer, Network, QuantizedNetwork
from dpuflow.ops import make
from dpuflow.xir import Graph, Op
from dpuflow.xir.ends import outputs

MOVING = ("concat", "flatten", "max_pool", "upsample", "downsample", "pixel_shuffle")
"""Kinds whose values are those of their inputs: rounding behind them is rounding in front."""
Pad = tuple[int, int, int, int]
"""(left, right, top, bottom)."""
HINT = "quantize the float model with dpuflow instead (keras_h5, frozen_pb, ...)"


class Values:
    """What each op of the graph is: a constant, a layer (rounded or not yet), or a step between two."""

    def __init__(self, path: Path | str, graph: Graph) -> None:
        self.path, self.graph = path, graph
        self.constants: dict[str, np.ndarray] = {}
        self.integers: dict[str, tuple[np.ndarray, int]] = {}
        self.value: dict[str, str] = {}  # op -> the layer whose value it is
        self.layers: dict[str, Layer] = {}
        self.fix_points: dict[str, int] = {}
        self.weights: dict[str, tuple[np.ndarray, int]] = {}
        self.biases: dict[str, tuple[np.ndarray, int]] = {}
        self.unscaled: dict[str, str] = {}  # layer that waits for the factor behind it -> op
        self.turned: dict[str, set[int]] = {}  # op in NCHW -> axes over which a mean was taken
        self.padded: dict[str, tuple[str, Pad]] = {}  # op -> (op of the map inside, zeros around it)
        # layers that have their input's fix_point until a fix op says another
        self.borrowed: set[str] = set()

    def read(self, op: Op) -> None:
        """Take over one op, its inputs being read already."""
        raise NotImplementedError

    def finish(self) -> None:
        """What is left to do when all ops are read."""

    def fail(self, op: Op, problem: str) -> NoReturn:
        """Raise the UserError about an op."""
        raise UserError(f"{self.path}: op {op.name!r} ({op.type}): {problem}; {HINT}")

    def network(self, name: str, scaling: dict[str, Any]) -> QuantizedNetwork:
        """Read every op, in the order in which they need each other."""
        for op in self._ordered():
            self.read(op)
        ends = self._ends()
        for layer in list(self.layers):
            if layer not in self.fix_points and self.layers[layer].operator.quantized:
                self.close(layer)
        waiting = next((op for op in self.unscaled.values()), None)
        if waiting:
            self.fail(self.graph.op(waiting), "has no factor behind it")
        self.finish()
        return self._named(name, ends, scaling)

    def _named(self, name, ends, scaling):
        """The network under names that TensorFlow's nodes may have, too."""
        new: dict[str, str] = {}
        for old in self.layers:
            plain = re.sub(r"[^A-Za-z0-9_.\-/]", "_", old).lstrip("_-/") or "op"
            while plain in new.values():
                plain += "_"
            new[old] = plain
        for old, layer in self.layers.items():
            layer.name, layer.inputs = new[old], [new[source] for source in layer.inputs]
        tables = [{new[k]: v for k, v in t.items()} for t in (self.fix_points, self.weights, self.biases)]
        ends = {new.get(end, end): new[source] for end, source in ends.items()}
        return QuantizedNetwork(Network(name, list(self.layers.values()), ends), *tables, scaling)

    def _ordered(self):
        done, waiting, order = set(), [(op, False) for op in reversed(self.graph.ops)], []
        while waiting:
            op, ready = waiting.pop()
            if op.name in done:
                continue
            if ready:
                done.add(op.name)
                order.append(op)
                continue
            waiting.append((op, True))
            waiting += [(self.graph.op(n), False) for n in reversed(op.input_names) if n not in done]
            if len(waiting) > 4 * len(self.graph.ops) + 4096:
                raise ValueError("its ops need each other in a circle")
        return order

    def _ends(self):
        attrs, ends = self.graph.attrs, outputs(self.graph)
        names = [op.name for op in ends if op.name in self.value]
        if not names or ("return_ops" in attrs and len(names) < len(ends)):
            raise ValueError(
                "it has no output" if not names else "an output of it is no values of the network"
            )
        if len(names) == 1:
            return {}
        own = list(attrs["output_names"]) if "output_names" in attrs else []
        if own and len(own) != len(names):
            raise ValueError(f"{len(own)} names for its {len(names)} outputs")
        if len(set(own)) < len(own):
            raise ValueError(f"outputs of one name: {', '.join(own)}")
        layers = [self.value[name] for name in names]
        if not own and len(set(layers)) < len(layers):
            raise ValueError(f"two outputs are the same values: {', '.join(names)}")
        return dict(zip(own or layers, layers, strict=True))

    # -- values ------------------------------------------------------------------------------

    def source(self, op: Op, position: int = 0) -> str:
        """The layer of an input of an op, rounded."""
        name = op.inputs["input"][position]
        if name in self.turned:
            self.fail(op, "reads a map with the channels first")
        layer = self.layer_of(op, name)
        self.close(layer, op)
        return layer

    def padded_source(self, op: Op) -> tuple[str, Pad]:
        """(the layer of the first input, rounded; zeros that lie around it)."""
        inner, around = self.padded.get(op.inputs["input"][0], (None, (0, 0, 0, 0)))
        if inner is None:
            return self.source(op), around
        layer = self.layer_of(op, inner)
        self.close(layer, op)
        return layer, around

    def moved(self, op: Op, position: int = 0) -> str:
        """The layer of an input that may be rounded behind `op`."""
        name = op.inputs["input"][position]
        if name in self.turned:
            self.fail(op, "reads a map with the channels first")
        layer = self.layer_of(op, name)
        if len(self.graph.consumers(name)) > 1:
            self.close(layer, op)
        return layer

    def layer_of(self, op: Op, name: str) -> str:
        """The layer whose values op `name` has, read by `op`."""
        if name in self.padded:
            self.fail(op, f"reads {name!r}, a padded map, which a convolution or an average pool can")
        if name not in self.value:
            self.fail(op, f"reads {name!r}, which is no activation")
        layer = self.value[name]
        if layer in self.unscaled:
            self.fail(self.graph.op(self.unscaled[layer]), "has no factor behind it")
        return layer

    def close(self, layer: str, reader: Op | None = None) -> None:
        """See that a layer has a fix_point: its own, or that of what it moves."""
        if layer in self.fix_points or not self.layers[layer].operator.quantized:
            return
        if self.layers[layer].op in MOVING:
            for source in self.layers[layer].inputs:
                self.close(source, reader)
            found = {self.fix_points[source] for source in self.layers[layer].inputs}
            if len(found) == 1:
                self.fix_points[layer] = found.pop()
                return
        where = f" before {reader.name!r} reads it" if reader is not None else ""
        raise UserError(f"{self.path}: op {layer!r}: no fix op rounds its values{where}; {HINT}")

    def add(
        self,
        op: Op,
        kind: str,
        inputs: Iterable[str],
        attrs: dict[str, Any],
        shape: Sequence[int] | None = None,
    ) -> None:
        """The layer of an op, under its name; shape : with the batch, None: that of its tensor."""
        shape = tuple(int(n) for n in (op.tensor.shape if shape is None else shape))[1:]
        self.layers[op.name] = Layer(op.name, kind, list(inputs), shape, attrs)
        make(kind, attrs)
        self.value[op.name] = op.name

    def array(self, name: str) -> np.ndarray:
        """Float values of a constant, rounded where a fix op stands."""
        if name in self.constants:
            return self.constants[name]
        data, fix_point = self.integers[name]
        return Grid(fix_point).reals(data)
