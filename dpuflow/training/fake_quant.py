"""A Keras model that sees INT8 while it trains: power-of-two fake quantization of the folded network.

The forward pass is that of the network which the quantizer makes of the model: folded by the same steps
(`quantize.folding`), on the fix_points that the quantizer chooses for it (vote, groups, repairs), with the
DPU's roundings. Gradients pass straight through the rounding and stop where a value saturates (
docs/reference/numerics.md, "Rounding"; docs/reference/quantizers.md). Training it changes the variables of
the model
underneath, whose architecture stays as it is.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dpuflow.base.numerics import INT8_MAX, INT8_MIN
from dpuflow.base.pixels import Scaling, network_gain
from dpuflow.base.tensorflow_env import keras, tensorflow
from dpuflow.base.threads import single_threaded_blas
from dpuflow.base.totality import Total
from dpuflow.device.dpuczdx8g import HARD_SIGMOID_FACTOR, average_pool_factor
from dpuflow.network import WEIGHTED, Layer, QuantizedNetwork, folded_ops
from dpuflow.ops import ACTIVATIONS, kinds
from dpuflow.ops.activations import SLOPE
from dpuflow.ops.convolution import weighted
from dpuflow.ops.pooling import InsideAveragePool
from dpuflow.ops.rearranging import shuffled
from dpuflow.ops.resampling import ResizeBilinear
from dpuflow.quantize import blocks
from dpuflow.quantize.folding import fold_with_recipe
from dpuflow.quantize.folding_arithmetic import Parameters, replay
from dpuflow.quantize.quantization import Quantization
from dpuflow.quantize.settings import complete
from dpuflow.training import float_layers
from dpuflow.training.keras_network import read_keras

SETTINGS = {"equalization": False, "position_search": {"criterion": None}, "fast_finetune": False}
"""Of the quantizer: what chooses fix_points without changing a weight. They stay as chosen at the start."""
AS_IT_IS = {"subtract": 0, "divide": 1}
"""Input scaling of inputs that are not scaled."""


def fake_quantized(model: Any, calibration_images: blocks.Pixels, input_scaling: Scaling = AS_IT_IS) -> Any:
    """Return a Keras model of the same outputs that computes in fake-quantized arithmetic.

    Parameters
    ----------
    model : Keras model of layers in `keras_network.LAYERS`.
    calibration_images : uint8 (N, H, W, C), training images, of which a few are read at a time; they fix
        the fix_points of all tensors once, as the quantizer would (`SETTINGS`).
    input_scaling : what the model sees of them (`base.pixels`).

    Raises
    ------
    UserError : a layer that has no INT8 counterpart here, by name.
    """
    return _model_class()(model, calibration_images, input_scaling)


def fix_points(
    model: Any, calibration_images: blocks.Pixels, input_scaling: Scaling
) -> tuple[QuantizedNetwork, Any, Callable[[], dict[str, Parameters]]]:
    """(QuantizedNetwork of the model as it is now, recipe of its folding, function for its parameters)."""
    network, parameters = read_keras(model)
    settings = complete(SETTINGS)
    _, _, recipe = fold_with_recipe(network, settings["batch_norm_after_activation"])
    with single_threaded_blas():
        quantization = Quantization(network, calibration_images, settings, input_scaling)
        return quantization.run().quantized, recipe, parameters


def _model_class():
    K, tf = keras(), tensorflow()

    class FakeQuantized(K.Model):  # type: ignore[name-defined]  # known at run time only
        """The folded network of `base` with fake quantization, a function of base's variables."""

        def __init__(self, base, calibration_images, input_scaling):
            super().__init__(name=f"{base.name}_int8")
            self.base = base
            self.quantized, self.recipe, self.parameters = fix_points(base, calibration_images, input_scaling)

        def call(self, inputs: Any, training: bool = False) -> Any:
            table = replay(self.recipe, self.parameters(), tf.experimental.numpy)
            return _Forward(self.quantized, table).run(inputs)

    return FakeQuantized


def rounded(x: Any, fix_point: int, rounding: str) -> Any:
    """x on the grid of `fix_point`, saturated; the gradient passes inside the range."""
    tf = tensorflow()
    scale = 2.0**fix_point
    inside = tf.clip_by_value(x, INT8_MIN / scale, INT8_MAX / scale)
    return inside + tf.stop_gradient(_ROUNDINGS[rounding](inside * scale) / scale - inside)


def _half_up(x):
    return tensorflow().floor(x + 0.5)


def _half_away(x):
    tf = tensorflow()
    return tf.sign(x) * tf.floor(tf.abs(x) + 0.5)


_ROUNDINGS = {"half_up": _half_up, "half_away": _half_away}
"""Of activations and of parameters."""


class _Forward:
    """One forward pass of a folded network on its grids; `table` has its parameters of this moment."""

    def __init__(self, quantized, table):
        self.quantized, self.table = quantized, table
        given = "gain" in quantized.input_scaling
        self.gain = network_gain(quantized.input_scaling).astype(np.float32) if given else None

    def run(self, x: Any) -> Any:
        """Output of the network for a batch x of real inputs; a list, where it has several."""
        values: dict[str, Any] = {}
        for layer in self.quantized.network.layers:
            inputs = [values[name] for name in layer.inputs] or [x]  # (x : of the input)
            value = LAYERS[layer.op](self, layer, inputs)
            if layer.operator.quantized and not layer.operator.moves_bytes:
                value = rounded(value, self.quantized.fix_points[layer.name], "half_up")
            values[layer.name] = value
        found = [values[layer.name] for layer in self.quantized.network.outputs.values()]
        return found[0] if len(found) == 1 else found

    def given(self, layer: Layer, inputs: Sequence[Any]) -> Any:
        return inputs[0] if self.gain is None else inputs[0] * self.gain

    def weighted(self, layer: Layer, inputs: Sequence[Any]) -> Any:
        found, quantized = self.table[layer.name], self.quantized
        real = found.weights
        if self.gain is not None and layer.inputs == [quantized.network.input.name]:
            real = real / self.gain  # as `quantize.input_grid` does
        weights = rounded(real, quantized.weights[layer.name][1], "half_away")
        total = _LINEAR[layer.op](layer, inputs[0], weights)
        if found.bias is not None:
            total += rounded(found.bias, quantized.biases[layer.name][1], "half_away")
        return _ACTIVATE[layer.attrs["activation"]](total)

    def add(self, layer: Layer, inputs: Sequence[Any]) -> Any:
        return _ACTIVATE[layer.attrs["activation"]](tensorflow().add_n(inputs))

    def max_pool(self, layer: Layer, inputs: Sequence[Any]) -> Any:
        x = _padded(layer, inputs[0], inputs[0].dtype.min)
        kernel, stride = (layer.attrs[name][::-1] for name in ("kernel", "stride"))
        return tensorflow().nn.max_pool2d(x, kernel, stride, "VALID")

    def average_pool(self, layer: Layer, inputs: Sequence[Any]) -> Any:
        kernel, stride = (layer.attrs[name][::-1] for name in ("kernel", "stride"))
        multiplier, shift = average_pool_factor(*kernel)
        mean = tensorflow().nn.avg_pool2d(_padded(layer, inputs[0]), kernel, stride, "VALID")
        return mean * (kernel[0] * kernel[1] * multiplier / 2**shift)

    def hard_sigmoid(self, layer: Layer, inputs: Sequence[Any]) -> Any:
        factor, bits = HARD_SIGMOID_FACTOR
        return tensorflow().nn.relu6(inputs[0] + 3.0) * (factor / 2**bits)

    def multiply(self, layer: Layer, inputs: Sequence[Any]) -> Any:
        rank = 1 + len(layer.shape)
        over_map = [
            x if len(x.shape) == rank else tensorflow().reshape(x, (-1, 1, 1, x.shape[-1])) for x in inputs
        ]
        return over_map[0] * over_map[1]

    def average_inside(self, layer: Layer, inputs: Sequence[Any]) -> Any:
        operator, x = layer.operator, inputs[0]
        assert isinstance(operator, InsideAveragePool)  # by the table's row
        kernel, stride = (layer.attrs[name][::-1] for name in ("kernel", "stride"))
        mean = tensorflow().nn.avg_pool2d(_padded(layer, x), kernel, stride, "VALID")
        return mean * (operator.factors(tuple(x.shape[1:])) * operator.area).astype(np.float32)

    def pixel_shuffle(self, layer: Layer, inputs: Sequence[Any]) -> Any:
        tf = tensorflow()
        cut, order = shuffled(layer.attrs["scale"], layer.attrs["upscale"], layer.shape)
        return tf.reshape(tf.transpose(tf.reshape(inputs[0], (-1, *cut)), order), (-1, *layer.shape))

    def concat(self, layer: Layer, inputs: Sequence[Any]) -> Any:
        return tensorflow().concat(inputs, axis=-1)

    def upsample(self, layer: Layer, inputs: Sequence[Any]) -> Any:
        width, height = layer.attrs["factor"]
        return tensorflow().repeat(tensorflow().repeat(inputs[0], height, axis=1), width, axis=2)

    def downsample(self, layer: Layer, inputs: Sequence[Any]) -> Any:
        width, height = layer.attrs["factor"]
        return inputs[0][:, ::height, ::width]

    def resize_bilinear(self, layer: Layer, inputs: Sequence[Any]) -> Any:
        operator, x = layer.operator, inputs[0]
        assert isinstance(operator, ResizeBilinear)  # by the table's row
        for axis in (2, 1):
            lower, upper, share = operator.places(2 - axis, x.shape[axis])
            first, second = (tensorflow().gather(x, places, axis=axis) for places in (lower, upper))
            x = first + (second - first) * share.reshape((-1, 1) if axis == 2 else (-1, 1, 1))
        return x

    def flatten(self, layer: Layer, inputs: Sequence[Any]) -> Any:
        return tensorflow().reshape(inputs[0], (-1, *layer.shape))

    def on_cpu(self, layer: Layer, inputs: Sequence[Any]) -> Any:
        return float_layers.COMPUTE[layer.op](layer, inputs)


def _padded(layer, x, value=0.0):
    left, right, top, bottom = layer.attrs["pad"]
    if not any(layer.attrs["pad"]):
        return x
    return tensorflow().pad(x, [[0, 0], [top, bottom], [left, right], [0, 0]], constant_values=value)


def _window(layer):
    stride_w, stride_h = layer.attrs["stride"]
    return [1, stride_h, stride_w, 1], list(layer.attrs["dilation"][::-1])


def _conv(layer, x, weights):
    tf = tensorflow()
    strides, dilations = _window(layer)
    kernel = tf.transpose(weights, (1, 2, 3, 0))
    return tf.nn.conv2d(_padded(layer, x), kernel, strides, "VALID", dilations=dilations)


def _depthwise(layer, x, weights):
    tf = tensorflow()
    strides, dilations = _window(layer)
    kernel = tf.transpose(weights, (1, 2, 3, 0))
    return tf.nn.depthwise_conv2d(_padded(layer, x), kernel, strides, "VALID", dilations=dilations)


def _transposed(layer, x, weights):
    tf, (width, height) = tensorflow(), layer.attrs["stride"]
    if weighted(layer.operator).per_channel:
        weights = tf.eye(weights.shape[3])[:, None, None] * weights
    kernel = tf.transpose(weights[:, ::-1, ::-1], (1, 2, 0, 3))
    full = [
        (size - 1) * step + taps
        for size, step, taps in zip(x.shape[1:3], (height, width), layer.attrs["kernel"][::-1], strict=True)
    ]
    shape = [tf.shape(x)[0], *full, layer.shape[-1]]
    whole = tf.nn.conv2d_transpose(x, kernel, shape, (height, width), "VALID")
    left, _, top, _ = layer.attrs["pad"]
    return whole[:, top : top + layer.shape[0], left : left + layer.shape[1]]


def _dense(layer, x, weights):
    return tensorflow().matmul(x, weights, transpose_b=True)


_LINEAR = Total(
    "training.fake_quant: weighted sums",
    WEIGHTED,
    {
        "conv": _conv,
        "depthwise_conv": _depthwise,
        "dense": _dense,
        **dict.fromkeys(("transposed_conv", "transposed_depthwise_conv"), _transposed),
    },
)
_ACTIVATE = Total(
    "training.fake_quant: activation",
    ACTIVATIONS,
    {
        "NONE": lambda x: x,
        "RELU": lambda x: tensorflow().nn.relu(x),
        "RELU6": lambda x: tensorflow().nn.relu6(x),
        "LEAKYRELU": lambda x: tensorflow().nn.leaky_relu(x, SLOPE),
    },
)
LAYERS = Total(
    "training.fake_quant: a layer in fake-quantized arithmetic",
    folded_ops,
    {
        "input": _Forward.given,
        **dict.fromkeys(WEIGHTED, _Forward.weighted),
        "add": _Forward.add,
        "hard_sigmoid": _Forward.hard_sigmoid,
        "multiply": _Forward.multiply,
        "pixel_shuffle": _Forward.pixel_shuffle,
        "max_pool": _Forward.max_pool,
        "avg_pool": _Forward.average_pool,
        "avg_pool_inside": _Forward.average_inside,
        "upsample": _Forward.upsample,
        "downsample": _Forward.downsample,
        "resize_bilinear": _Forward.resize_bilinear,
        "concat": _Forward.concat,
        "flatten": _Forward.flatten,
        "to_grid": _Forward.given,
        **dict.fromkeys(kinds(lambda operator: not operator.quantized), _Forward.on_cpu),
    },
    optional=True,
)
