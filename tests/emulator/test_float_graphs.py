"""The Emulator on ops in floats, those of the CPU."""

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.emulator import Emulator, float_ops
from dpuflow.xir import Graph


def float_graph(*inputs):
    """A graph of float inputs of the shapes given, called a, b, ..."""
    graph = Graph("floats")
    for name, shape in zip("abc", inputs, strict=False):
        graph.add_op(name, "data", None, {"shape": list(shape), "data_type": "FLOAT32"})
    return graph


def custom(graph, type_, source, shape, **attrs):
    """An op that XIR does not define, as vai_q_pytorch writes it."""
    node = graph.proto.op_node.add(op_name=type_, op_type=type_)
    node.args.add(arg_name="input", arg_ops=[source])
    node.output_tensor.tensor_name = type_
    graph = Graph(proto=graph.proto)
    op = graph.op(type_)
    op.tensor.shape, op.tensor.data_type, op.tensor.bit_width = shape, "FLOAT", 32
    op.attrs["shape"], op.attrs["data_type"] = list(shape), "FLOAT32"
    for name, (value, kind) in attrs.items():
        op.attrs.set(name, value, kind)
    return graph


@pytest.mark.parametrize("attrs", [{}, {"dim": (1, "int32"), "p": (2, "int32")}, {"dim": ([1], "int32_vec")}])
def test_the_norm_of_a_descriptor(attrs):
    """SuperPoint ends in torch.norm(x, p=2, dim=1), on the CPU."""
    graph = custom(float_graph((1, 6, 3, 2)), "nndct_normalize", "a", (1, 3, 2), **attrs)
    x = np.random.default_rng(0).normal(size=(4, 6, 3, 2)).astype(np.float32)
    found = Emulator(graph).run(x)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.linalg.norm(x, axis=1), rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "attrs", "message"),
    [
        ((1, 3, 2), {"p": (1.0, "float")}, "only the Euclidean norm"),
        ((1, 3, 2), {"dim": (2, "int32")}, r"dim 2 does not say how \(1, 6, 3, 2\) becomes \(1, 3, 2\)"),
        ((1, 1, 1, 1), {}, "does not say how"),
    ],
)
def test_a_norm_that_is_not_clear_is_refused(shape, attrs, message):
    graph = custom(float_graph((1, 6, 3, 2)), "nndct_normalize", "a", shape, **attrs)
    with pytest.raises(UserError, match=message):
        Emulator(graph)


def test_several_inputs_go_by_name():
    graph = float_graph((1, 2), (1, 2))
    graph.add_op("sum", "add", {"input": ["a", "b"]})
    emulator, a = Emulator(graph), np.arange(6, dtype=np.float32).reshape(3, 2)
    np.testing.assert_array_equal(emulator.run({"b": a, "a": 10 * a}), 11 * a)
    with pytest.raises(UserError, match=r"has 2 inputs \(a, b\); give them by name"):
        emulator.run(a)
    with pytest.raises(UserError, match="needs an input called 'b'"):
        emulator.run({"a": a})
    with pytest.raises(UserError, match="as many images for every input"):
        emulator.run({"a": a, "b": a[:2]})


@pytest.mark.parametrize(
    ("type_", "attrs", "message"),
    [
        ("reshape", {"shape": [2, 6]}, "joins or splits images"),
        ("transpose", {"order": [1, 0, 2]}, "moves the batch"),
        ("softmax", {"axis": 0}, "axis 0 is the batch"),
        ("concat", {"axis": -3}, "axis 0 is the batch"),
    ],
)
def test_what_mixes_images_is_refused(type_, attrs, message):
    graph = float_graph((1, 3, 4))
    graph.add_op("x", type_, {"input": ["a"]}, attrs)
    with pytest.raises(UserError, match=message):
        Emulator(graph)


def test_a_hard_sigmoid_in_float_and_its_scale():
    """relu6(x + 3) / 6; with the quantizer's scale it is the DPU's 2731 / 2**14 exactly."""
    graph = float_graph((1, 5))
    graph.add_op("plain", "hard-sigmoid", {"input": ["a"]})
    data = np.array([6 * 2731 / 2**14], np.float32).tobytes()
    graph.add_op("k", "const", None, {"shape": [1], "data_type": "float32", "data": data})
    graph.add_op("scaled", "mul", {"input": ["plain", "k"]})
    x = np.array([[-4, -3, 0, 0.5, 4]], np.float32)
    found = Emulator(graph).run(x, dump=True)
    np.testing.assert_allclose(found["plain"], [[0, 0, 0.5, 3.5 / 6, 1]])
    assert found["scaled"].tolist() == [[v * 2731 / 2**14 for v in (0, 0, 3, 3.5, 6)]]


def test_float_pools_and_padding_modes():
    x = np.arange(16, dtype=np.float64).reshape(1, 4, 4, 1)
    window = {"kernel": (3, 3), "stride": (2, 2), "pad": (0, 0, 0, 0)}
    assert float_ops.max_pool(x, **window).reshape(-1).tolist() == [10]
    assert float_ops.max_pool(x, **window, pad_mode="CEIL").reshape(-1).tolist() == [10, 11, 14, 15]
    assert float_ops.max_pool(x, **window, pad_mode="SAME").shape == (1, 2, 2, 1)
    assert float_ops.max_pool(x, **window, pad_mode="VALID").reshape(-1).tolist() == [10]
    padded = {"kernel": (2, 2), "stride": (2, 2), "pad": (1, 1, 1, 1)}
    corner = float_ops.average_pool(x + 4, **padded)[0, 0, 0, 0]
    assert corner == 1
    assert float_ops.average_pool(x + 4, **padded, count_include_pad=False)[0, 0, 0, 0] == 4
