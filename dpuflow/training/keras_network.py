"""A Keras model as `dpuflow.network.Network`, its weights and biases functions of the model's variables.

The same layers that the frozen graph of the model gives when it is read (`tfgraph.graph_reader`), named
after the Keras layers, so that the quantizer's own folding and fix_points apply to a model that is still
being trained. tests/training/test_fake_quant.py holds the two against each other.
"""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.network import Layer, Network
from dpuflow.ops import make
from dpuflow.quantize.folding_arithmetic import Parameters
from dpuflow.tfgraph.weighted_nodes import window
from dpuflow.training.keras_parameters import Affine, Weights


def read_keras(model: Any) -> tuple[Network, Callable[[], dict[str, Parameters]]]:
    """Network of a functional or sequential Keras model, unfolded, with the parameters of this moment.

    UserError names a layer that has no counterpart.
    """
    reader = _Reader(model)
    table = reader.parameters()
    for layer in reader.layers:
        if layer.name in table:
            found = table[layer.name]
            layer.weights = np.asarray(found.weights, np.float32)
            layer.bias = None if found.bias is None else np.asarray(found.bias, np.float32)
    ends = [reader.value[id(tensor)].name for tensor in model.outputs]
    named = dict(zip(ends, ends, strict=True)) if len(ends) > 1 else {}
    return Network(model.name, reader.layers, named), reader.parameters


class _Reader:
    """Translates layer by layer; `variables` is layer name -> function that gives its Parameters."""

    def __init__(self, model):
        if len(model.inputs) != 1:
            raise UserError(
                f"quantization-aware training: the model has {len(model.inputs)} inputs; one is supported"
            )
        self.layers: list[Layer] = []
        self.variables: dict[str, Callable[[], Parameters]] = {}
        shape = tuple(model.inputs[0].shape[1:])
        if len(shape) != 3 or None in shape:
            raise UserError(f"quantization-aware training: the input has the shape {shape}, not (H, W, C)")
        self.value = {id(model.inputs[0]): self.emit("input", "input", [], shape)}
        for layer in model.layers:
            kind = type(layer).__name__
            if kind == "InputLayer":
                continue
            if kind not in LAYERS:
                self.fail(layer, f"is a {kind}, which is not supported; supported: {', '.join(LAYERS)}")
            if len(layer.inbound_nodes) != 1:
                self.fail(layer, f"is used {len(layer.inbound_nodes)} times; only once is supported")
            tensors = layer.input if isinstance(layer.input, list) else [layer.input]
            self.value[id(layer.output)] = LAYERS[kind](self, layer, *(self.value[id(t)] for t in tensors))

    def parameters(self) -> dict[str, Parameters]:
        """{layer name: Parameters} as TensorFlow values of the model's variables as they are now."""
        return {name: variables() for name, variables in self.variables.items()}

    def fail(self, layer: Any, problem: str) -> NoReturn:
        raise UserError(f"quantization-aware training: layer {layer.name!r} {problem}")

    def emit(
        self,
        name: str,
        op: str,
        inputs: Sequence[Layer | str],
        shape: Sequence[int],
        variables: Callable[[], Parameters] | None = None,
        **attrs: Any,
    ) -> Layer:
        """Append a layer; returns it."""
        for source in inputs:
            if not isinstance(source, str) and source.op in PARTS:
                raise UserError(
                    f"quantization-aware training: {name!r} reads {source.name!r}, which is no part of "
                    "a whole relu6(x + 3) / 6"
                )
        names = [source if isinstance(source, str) else source.name for source in inputs]
        layer = Layer(name, op, names, tuple(shape), attrs)
        self.layers.append(layer)
        if variables:
            self.variables[name] = variables
        return layer

    # -- layers with weights -----------------------------------------------------------------

    def sliding(
        self,
        layer: Any,
        source: Layer,
        kernel: Sequence[int],
        stride: Sequence[int],
        dilation: Sequence[int] = (1, 1),
    ) -> tuple[tuple[int, int], dict[str, Any]]:
        """((height, width) of the output, kernel, stride, dilation and pad as a Network has them)."""
        if len(source.shape) != 3:
            self.fail(layer, f"reads a tensor of shape {source.shape}, not a map")
        padding = layer.padding.upper()
        if padding not in ("SAME", "VALID"):
            self.fail(layer, f"has padding {layer.padding!r}; same and valid are supported")
        height, top, bottom = window(source.shape[0], kernel[0], stride[0], dilation[0], padding)
        width, left, right = window(source.shape[1], kernel[1], stride[1], dilation[1], padding)
        attrs = {
            "kernel": tuple(kernel[::-1]),
            "stride": tuple(stride[::-1]),
            "pad": (left, right, top, bottom),
        }
        return (height, width), attrs

    def conv(self, layer: Any, source: Layer) -> Layer:
        dilation = layer.dilation_rate
        size, attrs = self.sliding(layer, source, layer.kernel_size, layer.strides, dilation)
        attrs |= {"dilation": tuple(dilation[::-1]), "activation": "NONE"}
        weights = Weights(layer, (3, 0, 1, 2))
        new = self.emit(layer.name, "conv", [source], (*size, layer.filters), weights, **attrs)
        return self.own_activation(layer, new)

    def depthwise(self, layer: Any, source: Layer) -> Layer:
        dilation = layer.dilation_rate
        size, attrs = self.sliding(layer, source, layer.kernel_size, layer.strides, dilation)
        spans = [(k - 1) * step + 1 for k, step in zip(layer.kernel_size, dilation, strict=True)]
        attrs |= {"kernel": tuple(spans[::-1]), "dilation": (1, 1), "activation": "NONE"}
        shape = (*size, source.shape[-1] * layer.depth_multiplier)
        # as the reader of the graph has them: written out with zeros
        op = "depthwise_conv" if layer.depth_multiplier == 1 else "conv"
        new = self.emit(layer.name, op, [source], shape, Weights(layer, (3, 0, 1, 2)), **attrs)
        return self.own_activation(layer, new)

    def transposed(self, layer: Any, source: Layer) -> Layer:
        if layer.groups != 1 or tuple(layer.dilation_rate) != (1, 1) or layer.output_padding is not None:
            self.fail(layer, "has groups, dilation or output_padding, which are not supported")
        pads: list[int] = []
        size: list[int] = []
        for axis in (1, 0):
            step, taps = layer.strides[axis], layer.kernel_size[axis]
            whole = (source.shape[axis] - 1) * step + taps
            cut = whole - source.shape[axis] * step if layer.padding == "same" else 0
            if cut < 0 or (layer.padding == "valid" and taps < step):
                self.fail(layer, "has a kernel smaller than its stride, which is not supported")
            pads += [cut // 2, cut - cut // 2]
            size.insert(0, whole - cut)
        kernel, stride = layer.kernel_size[::-1], layer.strides[::-1]
        attrs: dict[str, Any] = {"kernel": tuple(kernel), "stride": tuple(stride), "pad": tuple(pads)}
        attrs |= {"dilation": (1, 1), "activation": "NONE"}
        shape, weights = (*size, layer.filters), Weights(layer, (2, 0, 1, 3), flipped=True)
        new = self.emit(layer.name, "transposed_conv", [source], shape, weights, **attrs)
        return self.own_activation(layer, new)

    def dense(self, layer: Any, source: Layer) -> Layer:
        if len(source.shape) != 1:
            self.fail(layer, f"reads a map of shape {source.shape}; flatten first")
        new = self.emit(
            layer.name, "dense", [source], (layer.units,), Weights(layer, (1, 0)), activation="NONE"
        )
        return self.own_activation(layer, new)

    def batch_norm(self, layer: Any, source: Layer) -> Layer:
        return self.emit(layer.name, "batch_norm", [source], source.shape, Affine(layer))

    # -- activations -------------------------------------------------------------------------

    def own_activation(self, layer: Any, source: Layer) -> Layer:
        """The activation that a layer brings along (`Conv2D(..., activation="relu")`)."""
        return self.activate(layer, source, f"{layer.name}/{layer.activation.__name__}")

    def activation(self, layer: Any, source: Layer) -> Layer:
        return self.activate(layer, source, layer.name)

    def activate(self, layer: Any, source: Layer, name: str) -> Layer:
        function = layer.activation.__name__
        if function not in FUNCTIONS:
            self.fail(layer, f"has the activation {function!r}; supported: {', '.join(FUNCTIONS)}")
        op = FUNCTIONS[function]
        if op == "hard_sigmoid":
            # Keras's is 0.2 x + 0.5 cut to 0 ... 1, which is the DPU's of 1.2 x
            channels = source.shape[-1]
            scale = Parameters(np.full(channels, 1.2, np.float32), np.zeros(channels, np.float32))
            source = self.emit(f"{name}/argument", "batch_norm", [source], source.shape, lambda: scale)
            name = f"{name}/clip_by_value"  # as the frozen graph calls it
        return self.emit(name, op, [source], source.shape) if op else source

    def rescaling(self, layer: Any, source: Layer) -> Layer:
        """Either of the two around a ReLU6 that make it a hard sigmoid; no other has a counterpart."""
        scale, offset = np.float32(layer.scale), np.float32(layer.offset)
        if (scale, offset) == (1, 3):
            return Layer(layer.name, PARTS[0], [source.name], source.shape)
        if source.op != PARTS[1] or (scale, offset) != (np.float32(1 / 6), 0):
            self.fail(layer, "is a Rescaling that is no part of relu6(x + 3) / 6")
        return self.emit(f"{source.name}/Relu6", "hard_sigmoid", source.inputs, source.shape)

    def relu(self, layer: Any, source: Layer) -> Layer:
        slope, most = float(layer.negative_slope), layer.max_value
        if source.op == PARTS[0]:
            if most is None or float(most) != 6 or slope or float(layer.threshold):
                self.fail(layer, "reads x + 3 and is no ReLU6")
            return Layer(layer.name, PARTS[1], source.inputs, source.shape)
        if float(layer.threshold) or (most is not None and (float(most) != 6 or slope)):
            self.fail(layer, "is a ReLU other than relu, relu6 or leaky relu")
        if slope:
            return self.emit(layer.name, "leaky_relu", [source], source.shape, alpha=slope)
        return self.emit(layer.name, "relu" if most is None else "relu6", [source], source.shape)

    def leaky_relu(self, layer: Any, source: Layer) -> Layer:
        return self.emit(layer.name, "leaky_relu", [source], source.shape, alpha=float(layer.alpha))

    def softmax(self, layer: Any, source: Layer) -> Layer:
        return self.emit(layer.name, "softmax", [source], source.shape)

    # -- pooling, joining, moving ------------------------------------------------------------

    def pool(self, layer: Any, source: Layer, op: str) -> Layer:
        size, attrs = self.sliding(layer, source, layer.pool_size, layer.strides)
        if op == "avg_pool" and any(attrs["pad"]):
            op = "avg_pool_inside"
        return self.emit(layer.name, op, [source], (*size, source.shape[-1]), **attrs)

    def max_pool(self, layer: Any, source: Layer) -> Layer:
        return self.pool(layer, source, "max_pool")

    def average_pool(self, layer: Any, source: Layer) -> Layer:
        return self.pool(layer, source, "avg_pool")

    def global_pool(self, layer: Any, source: Layer, op: str, node: str) -> Layer:
        """node : what TensorFlow calls it."""
        height, width, channels = source.shape
        attrs: dict[str, Any] = {"kernel": (width, height), "stride": (1, 1), "pad": (0, 0, 0, 0)}
        pooled = self.emit(layer.name, op, [source], (1, 1, channels), **attrs)
        if layer.keepdims:
            return pooled
        return self.emit(f"{layer.name}/{node}/flatten", "flatten", [pooled], (channels,))

    def global_average(self, layer: Any, source: Layer) -> Layer:
        return self.global_pool(layer, source, "avg_pool", "Mean")

    def global_max(self, layer: Any, source: Layer) -> Layer:
        return self.global_pool(layer, source, "max_pool", "Max")

    def operation(self, layer: Any, source: Layer) -> Layer:
        """A function of TensorFlow that Keras made a layer of."""
        if layer.symbol not in OPERATIONS:
            self.fail(layer, f"calls tf.{layer.symbol}; supported: {', '.join(OPERATIONS)}")
        (call,) = layer.inbound_nodes
        (_, block), (height, width, channels) = call.call_args, source.shape
        if layer.symbol == "nn.space_to_depth":
            shape = (height // block, width // block, channels * block**2)
            name = f"{layer.name}/SpaceToDepth/blocks"
            attrs = {"scale": block, "upscale": False}
            blocks = self.emit(name, "pixel_shuffle", [source], shape, **attrs)
            place, channel = np.divmod(np.arange(shape[2]), channels)
            return self.chosen(layer.name, blocks, channel * block**2 + place)
        order = np.moveaxis(np.arange(channels).reshape(block, block, -1), 2, 0).reshape(-1)
        ordered = self.chosen(f"{layer.name}/DepthToSpace/order", source, order)
        shape = (height * block, width * block, channels // block**2)
        return self.emit(layer.name, "pixel_shuffle", [ordered], shape, scale=block, upscale=True)

    def chosen(self, name: str, source: Layer, channels: np.ndarray) -> Layer:
        """Channels in another order, as `tfgraph.rearranging_nodes` has it."""
        if np.array_equal(channels, np.arange(len(channels))):
            return source
        weights = Parameters(np.eye(source.shape[-1], dtype=np.float32)[channels][:, None, None], None)
        attrs: dict[str, Any] = {"kernel": (1, 1), "stride": (1, 1), "pad": (0, 0, 0, 0)}
        attrs |= {"dilation": (1, 1), "activation": "NONE"}
        return self.emit(name, "conv", [source], source.shape, lambda: weights, **attrs)

    def upsample(self, layer: Any, source: Layer) -> Layer:
        (height, width, channels), (rows, columns) = source.shape, layer.size
        shape = (height * rows, width * columns, channels)
        if layer.interpolation == "nearest":
            return self.emit(f"{layer.name}/resize", "upsample", [source], shape, factor=(columns, rows))
        if layer.interpolation != "bilinear":
            self.fail(
                layer, f"has the interpolation {layer.interpolation!r}; nearest and bilinear are supported"
            )
        size = (shape[1], shape[0])
        return self.emit(
            f"{layer.name}/resize", "resize_bilinear", [source], shape, size=size, grid="half_pixel"
        )

    def add(self, layer: Any, first: Layer, *others: Layer) -> Layer:
        for k, other in enumerate(others):
            if first.shape != other.shape:
                self.fail(layer, f"adds shapes {first.shape} and {other.shape}")
            name = layer.name if k == len(others) - 1 else f"{layer.name}/{k}"
            first = self.emit(name, "add", [first, other], first.shape, activation="NONE")
        return first

    def multiply(self, layer: Any, first: Layer, second: Layer) -> Layer:
        try:
            shape = make("multiply", {}).output_shape([first.shape, second.shape])
        except ValueError as error:
            self.fail(layer, f"multiplies shapes {first.shape} and {second.shape}: {error}")
        return self.emit(layer.name, "multiply", [first, second], shape)

    def concat(self, layer: Any, *sources: Layer) -> Layer:
        rank = len(sources[0].shape) + 1
        if layer.axis % rank != rank - 1:
            self.fail(layer, f"joins along axis {layer.axis}; only the channels are supported")
        shape = (*sources[0].shape[:-1], sum(source.shape[-1] for source in sources))
        return self.emit(layer.name, "concat", sources, shape, axis=rank - 1)

    def flatten(self, layer: Any, source: Layer) -> Layer:
        if len(source.shape) == 1:
            return source
        return self.emit(layer.name, "flatten", [source], (int(np.prod(source.shape)),))

    def nothing(self, layer: Any, source: Layer) -> Layer:
        """Only training sees it, or nothing does."""
        return source


FUNCTIONS = {"linear": None, "relu": "relu", "relu6": "relu6", "softmax": "softmax"}
FUNCTIONS |= {"hard_sigmoid": "hard_sigmoid", "sigmoid": "sigmoid"}
"""Keras activation function -> op."""
PARTS = ("x + 3", "relu6(x + 3)")
"""Of a hard sigmoid; no layers of the network."""
OPERATIONS = ("nn.space_to_depth", "nn.depth_to_space")
"""Functions of TensorFlow that `model_builder` calls."""
LAYERS: dict[str, Callable[..., Layer]] = {
    "Conv2D": _Reader.conv,
    "DepthwiseConv2D": _Reader.depthwise,
    "Conv2DTranspose": _Reader.transposed,
    "Dense": _Reader.dense,
    "BatchNormalization": _Reader.batch_norm,
    "Activation": _Reader.activation,
    "ReLU": _Reader.relu,
    "LeakyReLU": _Reader.leaky_relu,
    "Rescaling": _Reader.rescaling,
    "Softmax": _Reader.softmax,
    "MaxPooling2D": _Reader.max_pool,
    "AveragePooling2D": _Reader.average_pool,
    "GlobalAveragePooling2D": _Reader.global_average,
    "GlobalMaxPooling2D": _Reader.global_max,
    "TFOpLambda": _Reader.operation,
    "UpSampling2D": _Reader.upsample,
    "Add": _Reader.add,
    "Multiply": _Reader.multiply,
    "Concatenate": _Reader.concat,
    "Flatten": _Reader.flatten,
    "Dropout": _Reader.nothing,
}
"""Keras layer class -> its translation."""
