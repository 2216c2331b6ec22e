"""From TensorFlow's layers to what one DPU instruction computes: conv + bias + activation.

`fold` is exact in real arithmetic. Batch normalisation before an activation folds into
the convolution in front of it. Behind an activation (the tutorial's Conv-ReLU-BN) it
moves down, through pooling where that commutes, into the linear layer that follows;
zero padding there sees the offset only inside the map, so a plain bias would be wrong at
the border. Then the producing convolution gets one more channel that is constant: zero
padding applies to it as well, and the next convolution weighs it with the offset. Where
none of this works the layer becomes a 1x1 depthwise convolution, as in the vendor's TF2
tool (docs/reference/quantizers.md, "Constraints and repairs").
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.device.dpuczdx8g import LEAKY_RELU_SLOPE
from dpuflow.network import WEIGHTED, Layer, Network, marked, unmarked
from dpuflow.network.devices import settle
from dpuflow.network.merging import bypass
from dpuflow.quantize import folding_arithmetic as arithmetic
from dpuflow.quantize.folding_arithmetic import Parameters, ParameterTable, Step

Note = dict[str, str]
"""{"layer", "into", "how"}."""

REPLACED = "replaced by"
"""How a note says that a layer computes something else than the network's (`replacements`)."""
MAX_SLOPE_DIFFERENCE = 0.005
"""Accepted |alpha - 26/256|; Keras networks made for the DPU use 0.1."""

LONGEST_DIAGONAL = 8192
"""Values of a vector: as a dense layer an operation on each alone takes this number squared of weights."""


def fold(network: Network, batch_norm_after_activation: str = "fold") -> tuple[Network, list[Note]]:
    """Fold a network as read by `tfgraph.graph_reader`.

    Parameters
    ----------
    network : Network (left untouched).
    batch_norm_after_activation : "fold" (into the following layer) or "depthwise" (always a
        1x1 depthwise convolution, as the vendor's TF2 tool does).

    Returns
    -------
    (Network, notes): layers of input, conv, depthwise_conv, dense, pooling, add, concat,
    flatten, softmax only; notes is a list of {"layer", "into", "how"} for the report.
    """
    return fold_with_recipe(network, batch_norm_after_activation)[:2]


POOLS = ("max_pool", "avg_pool", "avg_pool_inside")
"""What a constant channel passes unchanged."""


def fold_with_recipe(
    network: Network, batch_norm_after_activation: str = "fold"
) -> tuple[Network, list[Note], list[Step]]:
    """As `fold`; also returns the recipe (`folding_arithmetic.Step`s) that made its weights and biases."""
    outputs = {name: layer.name for name, layer in network.outputs.items()}
    work = Folding(settle(marked(copy.deepcopy(network.layers), outputs)))
    work.replace_sigmoids()
    work.replace_resizings()
    work.fold_batch_norm_upwards()
    work.check_leaky()
    work.move_activations_up()
    work.fuse_activations()
    if batch_norm_after_activation == "fold":
        work.fold_batch_norm_downwards()
    work.replace_leftovers()
    work.fuse_activations()
    layers, ends = unmarked(work.finished())
    return Network(network.name, layers, ends if network.ends else {}), work.notes, work.recipe


class Folding:
    """A network under folding, its outputs marked (`network.marked`).

    Attributes
    ----------
    layers : what is left; their weights and biases are those of `table` in the end.
    table : layer name -> Parameters; recipe : the steps that made them.
    notes : what vanished where.
    """

    def __init__(self, layers: list[Layer]) -> None:
        self.layers = layers
        self.table = {layer.name: Parameters(layer.weights, layer.bias) for layer in layers}
        for layer in self.layers:
            layer.weights = layer.bias = None
        self.recipe: list[Step] = []
        self.notes: list[Note] = []

    def take(self, function: Callable[..., None], *arguments: Any) -> None:
        """Take a step of `folding_arithmetic` and write it down."""
        function(np, self.table, *arguments)
        self.recipe.append(Step(function, arguments))

    def finished(self) -> list[Layer]:
        """The layers with their weights and biases."""
        for layer in self.layers:
            found = self.table.get(layer.name, Parameters(None, None))
            layer.weights, layer.bias = found.weights, found.bias
        return self.layers

    def layer(self, name: str) -> Layer:
        """The layer called so."""
        return next(layer for layer in self.layers if layer.name == name)

    def readers(self, name: str) -> list[Layer]:
        """The layers that read it."""
        return [layer for layer in self.layers if name in layer.inputs]

    def note(self, layer: str, into: str, how: str) -> None:
        """Write down what became of a layer."""
        self.notes.append({"layer": layer, "into": into, "how": how})

    def _of_op(self, op: str) -> list[Layer]:
        return [layer for layer in self.layers if layer.op == op]

    def _activations(self) -> list[Layer]:
        return [layer for layer in self.layers if layer.operator.fuses_as]

    # -- what the DPU has something else for -------------------------------------------------

    def replace_sigmoids(self) -> None:
        """The hard sigmoid for the sigmoid, as the vendor's quantizers do it."""
        for layer in self._of_op("sigmoid"):
            layer.op = "hard_sigmoid"
            self.note(layer.name, layer.name, f"sigmoid {REPLACED} relu6(x + 3) / 6")

    def replace_resizings(self) -> None:
        """One pixel is repeated, and what has its size already stays, whatever the grid of a resizing."""
        for layer in self._of_op("resize_bilinear"):
            source, size = self.layer(layer.inputs[0]), tuple(layer.attrs["size"])
            height, width, _ = source.shape
            if (width, height) == size and source.op != "input":
                self.layers = bypass(self.layers, layer.name, source.name)
                self.note(layer.name, source.name, "a resizing to the size that it has")
            elif (width, height) == (1, 1):
                layer.op, layer.attrs = "upsample", {"factor": size}
                self.note(layer.name, layer.name, "a resizing of one pixel is an upsampling")

    # -- before the activation ---------------------------------------------------------------

    def fold_batch_norm_upwards(self) -> None:
        """Conv-BN and Dense-BN: scale the weights, set the bias."""
        for norm in self._of_op("batch_norm"):
            before = self.layer(norm.inputs[0])
            if before.op not in WEIGHTED or len(self.readers(before.name)) != 1:
                continue
            self.take(arithmetic.norm_into_producer, norm.name, before.name, before.operator.output_axis)
            self.layers = bypass(self.layers, norm.name, before.name)
            self.note(norm.name, before.name, "batch normalisation folded into weights and bias")

    # -- activations -------------------------------------------------------------------------

    def check_leaky(self) -> None:
        """The DPU has slope 26/256; any other a below 1 is a x + (1 - a) relu(x), exactly."""
        slope = LEAKY_RELU_SLOPE[0] / 2 ** LEAKY_RELU_SLOPE[1]
        for layer in self._of_op("leaky_relu"):
            alpha = layer.attrs["alpha"]
            if abs(alpha - slope) <= MAX_SLOPE_DIFFERENCE:
                self.note(layer.name, layer.name, f"slope {alpha:g} becomes 26/256")
            elif alpha < 1:
                self._share_out(layer, alpha)
            else:
                raise UserError(
                    f"layer {layer.name!r}: leaky ReLU slope {alpha:g}; the DPU knows 26/256 = {slope:.4f}, "
                    "and others below 1 can be made: train with slope 0.1"
                )

    def _share_out(self, layer: Layer, alpha: float) -> None:
        """A leaky ReLU as the sum of two shares, one of which goes through ReLU."""
        (source,), shape, at = layer.inputs, layer.shape, self.layers.index(layer)
        parts = {name: f"{layer.name}/{name}" for name in ("slope", "rest", "relu")}
        self.take(arithmetic.share, parts["slope"], alpha, shape[-1])
        self.take(arithmetic.share, parts["rest"], 1 - alpha, shape[-1])
        self.layers[at : at + 1] = [
            Layer(parts["slope"], "batch_norm", [source], shape),
            Layer(parts["rest"], "batch_norm", [source], shape),
            Layer(parts["relu"], "relu", [parts["rest"]], shape),
            Layer(layer.name, "add", [parts["slope"], parts["relu"]], shape, {"activation": "NONE"}),
        ]
        how = f"slope {alpha:g}: {alpha:g} x + {1 - alpha:g} relu(x); the DPU fuses 26/256 only"
        self.note(layer.name, layer.name, how)

    def move_activations_up(self) -> None:
        """Conv-MaxPool-ReLU = Conv-ReLU-MaxPool, and Concat-ReLU = ReLU on every part."""
        moved = True
        while moved:
            moved = False
            for act in self._activations():
                before = self.layer(act.inputs[0])
                if not before.operator.commutes_with_relu or len(self.readers(before.name)) != 1:
                    continue
                self.layers = bypass(self.layers, act.name, before.name)
                for k, source in enumerate(list(before.inputs)):
                    name = act.name if len(before.inputs) == 1 else f"{act.name}/{k}"
                    new = Layer(name, act.op, [source], self.layer(source).shape, dict(act.attrs))
                    before.inputs[k] = name
                    self.layers.insert(self.layers.index(before), new)
                self.note(act.name, before.name, f"activation moved in front of {before.op}")
                moved = True

    def fuse_activations(self) -> None:
        """ReLU behind a weighted layer or an add becomes its activation attribute."""
        for act in self._activations():
            before = self.layer(act.inputs[0])
            if "activation" not in before.attrs or len(self.readers(before.name)) != 1:
                continue
            if before.attrs["activation"] != "NONE":
                if act.op == "relu" and before.attrs["activation"] in ("RELU", "RELU6"):
                    self.layers = bypass(self.layers, act.name, before.name)
                continue
            before.attrs["activation"] = act.operator.fuses_as
            self.layers = bypass(self.layers, act.name, before.name)
            self.note(act.name, before.name, "activation fused")

    # -- behind the activation ---------------------------------------------------------------

    def fold_batch_norm_downwards(self) -> None:
        """Move each remaining BN into the layers that follow, if all of it can go."""
        done = set()
        while True:
            norms = [layer for layer in self._of_op("batch_norm") if layer.name not in done]
            if not norms:
                return
            name = norms[0].name
            done.add(name)
            trial = copy.deepcopy(self)
            if trial.push_down(name):
                self.__dict__ = trial.__dict__

    def push_down(self, name: str) -> bool:
        """Push one BN (and its copies) down until absorbed; False when some piece stays."""
        pending = [name]
        while pending:
            norm = self.layer(pending.pop())
            source, readers = norm.inputs[0], self.readers(norm.name)
            if not readers:
                return False
            self.layers = [layer for layer in self.layers if layer is not norm]
            for reader in readers:  # all at once: who else reads the source decides what may become of it
                reader.inputs = [source if i == norm.name else i for i in reader.inputs]
            for k, reader in enumerate(readers):
                piece = copy.deepcopy(norm)
                if k:
                    piece.name = f"{norm.name}/{k}"
                    self.take(arithmetic.copy_norm, norm.name, piece.name)
                if reader.inputs.count(source) != 1 or not self._absorb_or_swap(piece, reader, pending):
                    return False
        return True

    def _absorb_or_swap(self, norm: Layer, reader: Layer, pending: list[str]) -> bool:
        """`reader` already reads what norm reads; fold norm into it or put norm behind it."""
        if reader.op in WEIGHTED:
            return self._absorb_into_weights(norm, reader)
        times = reader.operator.times_behind(self.table[norm.name].weights, reader.shape)
        if not times:
            return False
        for layer in self.readers(reader.name):
            layer.inputs = [norm.name + "/moved" if i == reader.name else i for i in layer.inputs]
        self.take(arithmetic.copy_norm, norm.name, norm.name + "/moved", times)
        norm.name, norm.inputs, norm.shape = norm.name + "/moved", [reader.name], reader.shape
        self.layers.insert(self.layers.index(reader) + 1, norm)
        pending.append(norm.name)
        return True

    def _absorb_into_weights(self, norm: Layer, reader: Layer) -> bool:
        padded = any(reader.attrs.get("pad", ()))
        if not padded or not self.table[norm.name].bias.any():
            self.take(arithmetic.norm_into_reader, norm.name, reader.name, reader.operator.output_axis)
            how = "batch normalisation folded forwards: scale and offset"
            self.note(norm.name.replace("/moved", ""), reader.name, how)
            return True
        return reader.op == "conv" and self._absorb_by_constant_channel(norm, reader)

    def _absorb_by_constant_channel(self, norm: Layer, reader: Layer) -> bool:
        """Give the producer of `reader`'s input a constant channel that carries the offset."""
        chain, producer = [], self.layer(reader.inputs[0])
        while producer.op in POOLS and len(self.readers(producer.name)) == 1:
            chain.append(producer)
            producer = self.layer(producer.inputs[0])
        if (
            producer.op != "conv"
            or len(self.readers(producer.name)) != 1
            or producer.attrs["activation"] == "RELU6"
        ):
            return False
        # A power of two that leaves the new weights no larger than the old: nothing else loses precision.
        kernel = np.abs(arithmetic.offset_kernel(np, self.table, norm.name, reader.name)).max()
        largest = np.abs(_scaled(self.table, norm, reader)).max()
        constant = 2.0 ** float(np.ceil(np.log2(kernel / largest))) if largest and kernel else 1.0
        self.take(arithmetic.norm_by_constant_channel, norm.name, reader.name, producer.name, constant)
        for layer in (producer, *chain):
            layer.shape = (*layer.shape[:-1], layer.shape[-1] + 1)
        self.note(
            norm.name.replace("/moved", ""),
            reader.name,
            "batch normalisation folded forwards: scale into the weights, "
            f"offset by a constant channel of {producer.name}",
        )
        return True

    # -- the rest ----------------------------------------------------------------------------

    def replace_leftovers(self) -> None:
        """BN and activations that found no partner become 1x1 depthwise (on vectors: dense) layers."""
        for layer in self.layers:
            activation = layer.operator.fuses_as
            if not activation and layer.op != "batch_norm":
                continue
            if activation and self._will_fuse(layer):
                continue
            if activation:
                self.take(arithmetic.identity, layer.name, layer.shape[-1])
            activation = activation or "NONE"
            self.note(layer.name, layer.name, f"{layer.op} becomes a 1x1 depthwise convolution")
            if len(layer.shape) == 1:
                if layer.shape[0] > LONGEST_DIAGONAL:
                    raise UserError(
                        f"layer {layer.name!r}: {layer.op} of a vector of {layer.shape[0]} values finds no "
                        f"layer to go into, and at most {LONGEST_DIAGONAL} can be a dense layer of its own; "
                        "put it in front of the flattening, where it is one factor for each channel"
                    )
                self.take(arithmetic.norm_as_dense, layer.name)
                layer.op, layer.attrs = "dense", {"activation": activation}
                continue
            self.take(arithmetic.norm_as_depthwise, layer.name)
            layer.op = "depthwise_conv"
            layer.attrs = {
                "kernel": (1, 1),
                "stride": (1, 1),
                "dilation": (1, 1),
                "pad": (0, 0, 0, 0),
                "activation": activation,
            }

    def _will_fuse(self, act: Layer) -> bool:
        """An activation behind a BN that becomes a depthwise convolution fuses into that."""
        before = self.layer(act.inputs[0])
        alone = len(self.readers(before.name)) == 1
        return alone and (before.op == "batch_norm" or before.attrs.get("activation") == "NONE")


def _scaled(table: ParameterTable, norm: Layer, reader: Layer) -> np.ndarray:
    """Weights of `reader` with the scale of `norm`, float32."""
    trial = {name: copy.copy(table[name]) for name in (norm.name, reader.name)}
    arithmetic.scale_into_reader(np, trial, norm.name, reader.name)
    return trial[reader.name].weights
