"""ONNX with QuantizeLinear and DequantizeLinear in powers of two: integers and fix_points stay."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from dpuflow.base.errors import UserError
from dpuflow.compiler.quantized_reading import quantized_network
from dpuflow.onnx_graph.qdq import qdq_graph
from dpuflow.quantize.engine import run_integer

SCALING = {"subtract": 0, "divide": 255}
CLASSES = 5


class Maker:
    """Writes a QDQ model node by node."""

    def __init__(self, seed=1):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.tensors, self.count = [], [], 0

    def add(self, kind, *inputs, **attributes):
        self.count += 1
        out = f"{kind}{self.count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=out, **attributes))
        return out

    def tensor(self, array):
        self.count += 1
        self.tensors.append(numpy_helper.from_array(np.asarray(array), f"t{self.count}"))
        return f"t{self.count}"

    def scale(self, fix_point):
        return self.tensor(np.float32(2.0**-fix_point))

    def rounded(self, name, fix_point, zero=None, scale=None):
        ends = [scale or self.scale(fix_point), self.tensor(np.int8(0) if zero is None else zero)]
        return self.add("DequantizeLinear", self.add("QuantizeLinear", name, *ends), *ends)

    def parameter(self, fix_point, *shape, dtype=np.int8, low=-90, high=91):
        data = self.rng.integers(low, high, shape).astype(dtype)
        return self.add("DequantizeLinear", self.tensor(data), self.scale(fix_point), self.tensor(dtype(0)))

    def save(self, path, output, shape=("N", 3, 8, 8)):
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            self.tensors,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 9
        onnx.save(model, path)
        return path


def network(path, bias=np.int8, fix_bias=9):
    """Convolutions, pools, an addition, a concatenation and a dense layer behind Flatten (NCHW order)."""
    make = Maker()
    x = make.rounded("image", 6)
    x = make.add("Conv", x, make.parameter(8, 4, 3, 3, 3), make.parameter(9, 4), pads=[1, 1, 1, 1])
    x = make.rounded(make.add("Relu", x), 4)
    pool = make.rounded(make.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), 4)
    y = make.add("Conv", pool, make.parameter(7, 4, 1, 3, 3), group=4, pads=[1, 1, 1, 1])
    y = make.rounded(make.add("Clip", y, make.tensor(np.float32(0)), make.tensor(np.float32(6))), 4)
    z = make.rounded(make.add("Add", pool, y), 3)
    z = make.add("Concat", make.rounded(z, 3), z, axis=1)
    z = make.rounded(z, 3)
    z = make.rounded(make.add("AveragePool", z, kernel_shape=[2, 2], strides=[2, 2]), 3)
    z = make.add("Flatten", z)
    weights = make.parameter(9, CLASSES, 32)
    biases = make.parameter(fix_bias, CLASSES, dtype=bias, low=-100, high=100)
    z = make.rounded(make.add("Gemm", z, weights, biases, transB=1), 4)
    return make.save(path, make.add("Softmax", z, axis=1))


def read(path):
    graph, notes = qdq_graph(path)
    return quantized_network(path, graph, "net", SCALING), notes


def test_a_model_gives_onnxruntime_s_values_but_for_halves(tmp_path):
    path = network(tmp_path / "q.onnx")
    quantized, notes = read(path)
    assert notes == []
    kinds = [layer.op for layer in quantized.network.layers]
    assert kinds == [
        *("input", "conv", "max_pool", "depthwise_conv", "add", "concat", "avg_pool"),
        *("flatten", "dense", "softmax"),
    ]
    fixes = [quantized.fix_points.get(layer.name) for layer in quantized.network.layers]
    assert fixes == [6, 4, 4, 4, 3, 3, 3, 3, 4, None]
    assert [quantized.network[n].attrs["activation"] for n in quantized.weights] == ["RELU", "RELU6", "NONE"]
    x = np.random.default_rng(2).integers(-128, 128, (6, 8, 8, 3)).astype(np.int8)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"image": np.ldexp(x.transpose(0, 3, 1, 2).astype(np.float32), -6)})
    logits = run_integer(quantized, x, keep=[quantized.network.layers[-2].name])
    logits = np.ldexp(next(iter(logits.values())).astype(np.float64), -4)
    assert np.ptp(logits) > 4
    found, wanted = logits, np.log(expected.astype(np.float64))
    off = np.abs(found - found.mean(1, keepdims=True) - wanted + wanted.mean(1, keepdims=True))
    # halves are rounded up here, to even there: here and there a step of the last fix_point, 1 / 16
    assert off.max() < 3.5 / 16 and off.mean() < 1 / 16


def test_a_bias_of_int32_becomes_the_finest_int8(tmp_path):
    quantized, notes = read(network(tmp_path / "q.onnx", np.int32, 9))
    assert notes == [] and quantized.biases[quantized.network.layers[-2].name][1] == 9
    make = Maker()
    x = make.rounded("image", 6)
    bias = make.parameter(14, 4, dtype=np.int32, low=-5000, high=5000)
    x = make.add("Conv", x, make.parameter(8, 4, 3, 8, 8), bias)
    x = make.add("Flatten", make.rounded(x, 3))
    quantized, notes = read(make.save(tmp_path / "b.onnx", x))
    (data, fix_point) = quantized.biases[quantized.network.layers[1].name]
    assert "rounded to int8 at fix_point 8" in notes[0] and fix_point == 8 and np.abs(data).max() > 40


def scaled(scale):
    def make_file(path):
        make = Maker()
        x = make.rounded("image", 0, scale=make.tensor(np.float32(scale)))
        return make.save(path, make.add("Flatten", x))

    return make_file


def pointed(zero):
    def make_file(path):
        make = Maker()
        return make.save(path, make.add("Flatten", make.rounded("image", 6, zero)))

    return make_file


def per_channel(path):
    make = Maker()
    weights = make.tensor(np.ones((2, 3, 1, 1), np.int8))
    scales = make.tensor(np.float32([0.5, 0.25]))
    weights = make.add("DequantizeLinear", weights, scales, make.tensor(np.zeros(2, np.int8)), axis=0)
    return make.save(path, make.add("Conv", make.rounded("image", 6), weights))


def float_weights(path):
    make = Maker()
    weights = make.tensor(np.ones((2, 3, 1, 1), np.float32))
    return make.save(path, make.add("Conv", make.rounded("image", 6), weights))


def operator(path):
    make = Maker()
    return make.save(path, make.add("Erf", make.rounded("image", 6)))


def unrounded(path):
    make = Maker()
    x = make.add("Conv", make.rounded("image", 6), make.parameter(8, 4, 3, 3, 3))
    return make.save(path, make.rounded(make.add("Conv", x, make.parameter(8, 4, 4, 3, 3)), 3))


REFUSED = {
    "no power of two": (scaled(0.1), r"'QuantizeLinear\d+' .*its scale 0\.1 is no power of two"),
    "a zero point": (pointed(np.int8(3)), "its zero point is .*3.* expected 0 of int8"),
    "uint8": (pointed(np.uint8(0)), "of uint8, expected 0 of int8"),
    "per channel": (per_channel, "has 2 scales, one for each channel"),
    "float weights": (float_weights, r"'Conv\d+' \(Conv\): its weights are not int8"),
    "an operator": (operator, r"'Erf\d+' \(Erf\): is not among the operators read here"),
    "no rounding": (unrounded, r"op 'Conv\d+': no fix op rounds its values before 'Conv\d+' reads it"),
}


@pytest.mark.fault("models", "quantized ONNX that no DPU computes", "refused")
@pytest.mark.parametrize("what", REFUSED)
def test_what_no_dpu_computes_is_refused_by_node(tmp_path, what):
    make_file, message = REFUSED[what]
    path = make_file(tmp_path / "q.onnx")
    with pytest.raises(UserError, match=message) as raised:
        read(path)
    assert "q.onnx" in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.fault("models", "cut or flipped quantized ONNX", "refused or a whole network")
def test_damage_is_refused(tmp_path):
    data, rng = network(tmp_path / "q.onnx").read_bytes(), np.random.default_rng(3)
    path, refused = tmp_path / "d.onnx", 0
    for number in range(80):
        broken = bytearray(data)
        position = int(rng.integers(len(data)))
        if number % 5:
            broken[position] ^= 1 << int(rng.integers(8))
        else:
            del broken[position:]
        path.write_bytes(broken)
        try:
            quantized, _ = read(path)
        except UserError as error:
            assert "d.onnx" in str(error) and "\n" not in str(error)
            refused += 1
        else:
            assert quantized.network.output.shape and quantized.fix_points
    assert refused > 30


def test_every_output_keeps_its_name(tmp_path):
    make = Maker()
    x = make.rounded("image", 6)
    x = make.add("Conv", x, make.parameter(8, 4, 3, 3, 3), make.parameter(9, 4), pads=[1, 1, 1, 1])
    x = make.rounded(make.add("Relu", x), 4)
    first = make.rounded(make.add("Conv", x, make.parameter(8, 2, 4, 1, 1), make.parameter(9, 2)), 3)
    second = make.rounded(make.add("Conv", x, make.parameter(8, 3, 4, 1, 1), make.parameter(9, 3)), 4)
    path = make.save(tmp_path / "q.onnx", first)
    model = onnx.load(path)
    model.graph.output.append(helper.make_tensor_value_info(second, TensorProto.FLOAT, None))
    onnx.save(model, path)
    quantized, _ = read(path)
    assert list(quantized.network.outputs) == [first, second]
    x = np.random.default_rng(2).integers(-128, 128, (3, 8, 8, 3)).astype(np.int8)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"image": np.ldexp(x.transpose(0, 3, 1, 2).astype(np.float32), -6)})
    values = run_integer(quantized, x)
    for layer, fix, wanted in zip(quantized.network.outputs.values(), (3, 4), expected, strict=True):
        found = np.ldexp(values[layer.name].astype(np.float64), -fix)
        assert np.ptp(found) > 1
        # halves are rounded up here, to even there
        assert np.abs(found - wanted.transpose(0, 2, 3, 1)).max() <= 1.001 * 2.0**-fix
