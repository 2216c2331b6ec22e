"""A Keras model that sees INT8 while it trains: power-of-two fake quantization.

The forward pass rounds weights (batch norm folded in) and activations to the grids that
the quantizer would choose, with its roundings; gradients pass straight through the
rounding and stop where a value saturates (facts dpu-numerics.md, "Rounding";
quantizers.md A2, "QAT"). Training it changes the variables of the model underneath,
whose architecture stays as it is.
"""

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.numerics import INT8_MAX, INT8_MIN
from dpuflow.base.tensorflow_env import keras, tensorflow
from dpuflow.quantize.positions import choose_activation, choose_weights

WEIGHTED = ("Conv2D", "DepthwiseConv2D", "Dense")
ACTIVATIONS = ("Activation", "ReLU", "LeakyReLU")
TRANSPARENT = ("InputLayer", "MaxPooling2D", "Flatten", "Dropout")
"""Layers whose output stays on the grid of their input."""
OTHERS = ("BatchNormalization", "AveragePooling2D", "GlobalAveragePooling2D", "Add", "Concatenate")


def fake_quantized(model, calibration_inputs):
    """Return a Keras model of the same output that computes in fake-quantized arithmetic.

    Parameters
    ----------
    model : functional Keras model of the layers named above, softmax at its end.
    calibration_inputs : float32 (N, H, W, C), training images; they fix the activations'
        positions once, by min-diffs. Weights' positions are fixed at their trained values.

    Raises
    ------
    UserError : a layer that has no INT8 counterpart here, by name.
    """
    for layer in model.layers:
        if type(layer).__name__ not in (*WEIGHTED, *ACTIVATIONS, *TRANSPARENT, *OTHERS):
            raise UserError(
                f"quantization-aware training: layer {layer.name!r} is a {type(layer).__name__}, which is "
                f"not supported; supported: {', '.join((*WEIGHTED, *ACTIVATIONS, *TRANSPARENT, *OTHERS))}"
            )
    wrapped = _model_class()(model)
    wrapped.calibrate(calibration_inputs)
    return wrapped


def _model_class():  # noqa: C901 - a class inside, because its base needs TensorFlow
    K, tf = keras(), tensorflow()

    class FakeQuantized(K.Model):
        """Interprets the layers of `base` with fake quantization at the quantizer's points."""

        def __init__(self, base):
            super().__init__(name=f"{base.name}_int8")
            self.base = base
            self.plan = _Plan(base)
            self.positions = {}
            self.weight_positions = {}

        def calibrate(self, x):
            """Choose weight positions, then activation positions front to back."""
            for layer in self.base.layers:
                if type(layer).__name__ in WEIGHTED:
                    kernel, _ = self.folded(layer)
                    self.weight_positions[layer.name] = choose_weights(np.asarray(kernel), "min_diffs")
            values = self.forward(tf.constant(x), choose=True)
            return values

        def call(self, inputs, training=False):
            return self.forward(inputs)

        def forward(self, inputs, choose=False):
            plan, values = self.plan, {}
            for layer in self.base.layers:
                kind = type(layer).__name__
                sources = [values[name] for name in plan.sources[layer.name]]
                if kind == "InputLayer":
                    value = inputs
                elif kind in WEIGHTED:
                    value = self.weighted(layer, kind, sources[0])
                elif layer.name in plan.folded_norms or kind == "Dropout":
                    value = sources[0]
                elif kind == "BatchNormalization":
                    scale, offset = self.affine(layer)
                    value = sources[0] * scale + offset
                else:
                    value = layer(sources[0] if len(sources) == 1 else sources)
                if layer.name in plan.points:
                    if choose:
                        self.positions[layer.name] = choose_activation(value.numpy(), "min_diffs")
                    value = self.rounded(value, self.positions[layer.name], "half_up")
                values[layer.name] = value
            return values[self.base.layers[-1].name]

        def affine(self, norm):
            """(scale, offset) of a batch norm with its moving statistics."""
            deviation = tf.sqrt(tf.stop_gradient(norm.moving_variance) + norm.epsilon)
            scale = (norm.gamma if norm.scale else 1.0) / deviation
            offset = (norm.beta if norm.center else 0.0) - tf.stop_gradient(norm.moving_mean) * scale
            return scale, offset

        def folded(self, layer):
            """Kernel and bias with the batch norm that directly follows."""
            depthwise = type(layer).__name__ == "DepthwiseConv2D"
            kernel = layer.depthwise_kernel if depthwise else layer.kernel
            bias = layer.bias if layer.use_bias else 0.0
            norm = self.plan.norm_of.get(layer.name)
            if norm is None:
                return kernel, bias
            scale, offset = self.affine(norm)
            return kernel * (scale[:, None] if depthwise else scale), bias * scale + offset

        def weighted(self, layer, kind, x):
            kernel, bias = self.folded(layer)
            kernel = self.rounded(kernel, self.weight_positions[layer.name], "half_away")
            if kind == "Dense":
                return tf.matmul(x, kernel) + bias
            strides = [1, *layer.strides, 1]
            padding = layer.padding.upper()
            if kind == "Conv2D":
                return tf.nn.conv2d(x, kernel, strides, padding, dilations=list(layer.dilation_rate)) + bias
            return tf.nn.depthwise_conv2d(x, kernel, strides, padding) + bias

        def rounded(self, x, position, rounding):
            """x on the grid of `position`, saturated; the gradient passes inside the range."""
            scale = 2.0**position
            inside = tf.clip_by_value(x, INT8_MIN / scale, INT8_MAX / scale)
            scaled = inside * scale
            if rounding == "half_up":
                grid = tf.floor(scaled + 0.5)
            else:
                grid = tf.sign(scaled) * tf.floor(tf.abs(scaled) + 0.5)
            return inside + tf.stop_gradient(grid / scale - inside)

    return FakeQuantized


class _Plan:
    """Which layers feed which, which batch norms fold, and where activations are quantized."""

    def __init__(self, model):
        producer = {id(layer.output): layer.name for layer in model.layers}
        self.sources = {}
        for layer in model.layers:
            tensors = layer.input if isinstance(layer.input, list) else [layer.input]
            is_input = type(layer).__name__ == "InputLayer"
            self.sources[layer.name] = [] if is_input else [producer[id(tensor)] for tensor in tensors]
        kinds = {layer.name: type(layer).__name__ for layer in model.layers}
        by_name = {layer.name: layer for layer in model.layers}
        readers = {name: [] for name in kinds}
        for name, sources in self.sources.items():
            for source in sources:
                readers[source].append(name)
        self.norm_of, self.folded_norms = {}, set()
        for name, kind in kinds.items():
            follower = readers[name][0] if len(readers[name]) == 1 else None
            if kind in WEIGHTED and follower and kinds[follower] == "BatchNormalization":
                self.norm_of[name] = by_name[follower]
                self.folded_norms.add(follower)

        def ends_on_a_grid(name):
            """The last of a chain weighted -> folded norm -> activation; softmax is not quantized."""
            kind = kinds[name]
            if kind == "Activation" and by_name[name].activation.__name__ == "softmax":
                return False
            if kind in TRANSPARENT:
                return kind == "InputLayer"
            if kind == "BatchNormalization" and name not in self.folded_norms:
                return False  # the quantizer folds it forwards
            follower = readers[name][0] if len(readers[name]) == 1 else None
            if follower is None:
                return True
            fused = kinds[follower] in ACTIVATIONS and not (
                kinds[follower] == "Activation" and by_name[follower].activation.__name__ == "softmax"
            )
            return not fused and follower not in self.folded_norms

        self.points = {name for name in kinds if ends_on_a_grid(name)}
