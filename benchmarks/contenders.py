"""The same network in what a user would run instead: TensorFlow Lite and ONNX Runtime.

Both are quantized after training, with the calibration images that dpuflow's quantizer gets.
"""

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import measuring  # noqa: F401  so that the package is found
import numpy as np

from dpuflow.network import WEIGHTED


def tflite_int8(frozen, ends, calibration):
    """A frozen graph as a TensorFlow Lite model (bytes) with int8 input and output.

    ends : names of its input and output nodes. calibration : float32 (N, H, W, C), network input.
    """
    from dpuflow.base.tensorflow_env import tensorflow

    tf = tensorflow()
    graph_def = tf.compat.v1.GraphDef()
    graph_def.ParseFromString(Path(frozen).read_bytes())
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(graph_def, name="")
    with tf.compat.v1.Session(graph=graph) as session:
        source, result = (graph.get_tensor_by_name(f"{name}:0") for name in ends)
        source.set_shape((None, *calibration.shape[1:]))
        converter = tf.compat.v1.lite.TFLiteConverter.from_session(session, [source], [result])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([x[None]] for x in calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        return converter.convert()


class TfLite:
    """A TensorFlow Lite model in batches of one size; `run(x)` -> int8 (N, classes)."""

    def __init__(self, model, batch, threads):
        from dpuflow.base.tensorflow_env import tensorflow

        tf = tensorflow()
        self.interpreter = tf.lite.Interpreter(model_content=model, num_threads=threads)
        self.source = self.interpreter.get_input_details()[0]
        self.result = self.interpreter.get_output_details()[0]["index"]
        self.batch = batch
        self._resize(batch)

    def _resize(self, batch):
        shape = (batch, *self.source["shape"][1:])
        self.interpreter.resize_tensor_input(self.source["index"], shape)
        self.interpreter.allocate_tensors()

    def quantize(self, x):
        """Network input (float32) -> what the model takes (int8)."""
        scale, zero = self.source["quantization"]
        return np.clip(np.rint(x / scale) + zero, -128, 127).astype(np.int8)

    def run(self, x):
        """Answers for int8 images; the last batch may be smaller."""
        answers = []
        for start in range(0, len(x), self.batch):
            part = x[start : start + self.batch]
            if len(part) < self.batch:
                self._resize(len(part))
            self.interpreter.set_tensor(self.source["index"], part)
            self.interpreter.invoke()
            answers.append(self.interpreter.get_tensor(self.result))
        if len(x) % self.batch:
            self._resize(self.batch)
        return np.concatenate(answers)


def onnx_int8(network, calibration, path):
    """Write a folded `Network` as an ONNX model with int8 weights and activations (QDQ) to `path`.

    ONNX Runtime's own static quantization; weights per channel, activations as uint8, which is
    what its x86 kernels are made for. calibration : float32 (N, H, W, C), network input.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        """Hands out the calibration images in batches."""

        def __init__(self):
            batches = [calibration[i : i + 32] for i in range(0, len(calibration), 32)]
            self.batches = iter([{"image": np.ascontiguousarray(b.transpose(0, 3, 1, 2))} for b in batches])

        def get_next(self):
            return next(self.batches, None)

    plain = Path(path).with_suffix(".float.onnx")
    onnx.save(onnx_float(network), plain)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        quantize_static(
            plain,
            path,
            Reader(),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def onnx_float(network):
    """A folded `Network` (conv, depthwise_conv, dense, pooling, add, flatten, softmax) as an ONNX model."""
    import onnx
    from onnx import helper, numpy_helper

    nodes, constants, name_of = [], [], {}

    def constant(name, values):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(op, inputs, name, **attributes):
        nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    for layer in network.layers:
        name, inputs = layer.name, [name_of[source] for source in layer.inputs]
        if layer.op == "input":
            name_of[name] = "image"
            continue
        window = _window(layer)
        if layer.op in WEIGHTED:
            weights, op = _onnx_weights(layer, network)
            inputs = [*inputs, constant(f"{name}/weights", weights)]
            if layer.bias is not None:
                inputs.append(constant(f"{name}/bias", layer.bias))
            if op == "Gemm":
                window = {"transB": 1}
            elif layer.op == "depthwise_conv":
                window["group"] = weights.shape[0]
            result = node(op, inputs, name, **window)
        elif layer.op == "flatten":
            result = node("Flatten", inputs, name)
        elif layer.op == "softmax":
            result = node("Softmax", inputs, name, axis=-1)
        else:
            op = {"max_pool": "MaxPool", "avg_pool": "AveragePool", "add": "Add"}[layer.op]
            result = node(op, inputs, name, **window)
        if layer.attrs.get("activation") == "RELU":
            result = node("Relu", [result], f"{name}/relu")
        name_of[name] = result
    height, width, channels = network.input.shape
    graph = helper.make_graph(
        nodes,
        network.name,
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["N", channels, height, width])],
        [
            helper.make_tensor_value_info(
                name_of[network.output.name], onnx.TensorProto.FLOAT, ["N", *network.output.shape]
            )
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


def _window(layer):
    """Kernel, stride, padding of a layer as ONNX attributes: height before width."""
    attributes = {}
    if "kernel" in layer.attrs:
        left, right, top, bottom = layer.attrs["pad"]
        attributes = {
            "kernel_shape": layer.attrs["kernel"][::-1],
            "strides": layer.attrs["stride"][::-1],
            "pads": (top, left, bottom, right),
        }
    if "dilation" in layer.attrs:
        attributes["dilations"] = layer.attrs["dilation"][::-1]
    return attributes


def _onnx_weights(layer, network):
    """Weights in ONNX's channels-first order, and the op that takes them."""
    weights = layer.weights
    if layer.op == "conv":
        return weights.transpose(0, 3, 1, 2), "Conv"
    if layer.op == "depthwise_conv":
        return weights.transpose(3, 0, 1, 2), "Conv"
    before = network[layer.inputs[0]]
    if before.op == "flatten":  # the columns follow (H, W, C); ONNX flattens (C, H, W)
        height, width, channels = network[before.inputs[0]].shape
        weights = weights.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)
    return weights.reshape(len(weights), -1), "Gemm"


class OnnxRuntime:
    """An ONNX model; `run(x)` -> float32 (N, classes) for float32 images (N, C, H, W)."""

    def __init__(self, path, batch, threads):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.batch = batch

    def quantize(self, x):
        """Channels first; the model itself quantizes its input."""
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))

    def run(self, x):
        """Probabilities of every image."""
        batches = range(0, len(x), self.batch)
        return np.concatenate([self.session.run(None, {"image": x[i : i + self.batch]})[0] for i in batches])
