"""GraphDef without TensorFlow: the same messages, the same numbers."""

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.tfgraph.graph_def import (
    add_constant,
    add_node,
    new_graph,
    parse_graph_def,
    read_graph_def,
    tensor_to_array,
    write_graph_def,
)

ARRAYS = {
    "float32": np.array([[1.5, -2.25], [0.0, 3e8]], np.float32),
    "scalar": np.float32(7.5),
    "one value repeated": np.full((3, 4), 2.5, np.float32),
    "float64": np.array([np.pi]),
    "float16": np.array([1.5, -0.25], np.float16),
    "int32": np.array([[1, -2, 3]], np.int32),
    "int64": np.array([2**40, -1]),
    "int8": np.array([-128, 127], np.int8),
    "bool": np.array([True, False]),
    "empty": np.zeros((0,), np.int32),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_tensors_of_tensorflow_read_back(name):
    from dpuflow.base.tensorflow_env import tensorflow

    tf = tensorflow()
    value = ARRAYS[name]
    with tf.Graph().as_default() as graph:
        tf.constant(value, name="c")
    node = parse_graph_def(graph.as_graph_def().SerializeToString(), "g").node[0]
    array = tensor_to_array(node.attr["value"].tensor)
    assert array.dtype == np.asarray(value).dtype
    np.testing.assert_array_equal(array, value)


def test_repeated_tail_is_filled_in():
    node = new_graph().node.add()
    tensor = node.attr["value"].tensor
    tensor.dtype = 1
    tensor.tensor_shape.dim.add(size=5)
    tensor.float_val.extend([3.0, 4.0])
    np.testing.assert_array_equal(tensor_to_array(tensor), [3, 4, 4, 4, 4])


def test_what_is_written_tensorflow_reads(tmp_path):
    from dpuflow.base.tensorflow_env import tensorflow

    tf = tensorflow()
    graph = new_graph()
    add_node(graph, "Placeholder", "x", dtype=("type", 1), shape=("shape", [-1, 2]))
    add_constant(graph, "w", np.array([[2.0], [3.0]], np.float32))
    add_node(graph, "MatMul", "y", ["x", "w"], T=("type", 1), transpose_a=False)
    write_graph_def(tmp_path / "g.pb", graph)
    read = tf.compat.v1.GraphDef()
    read.ParseFromString((tmp_path / "g.pb").read_bytes())
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(read, name="")
        np.testing.assert_array_equal(session.run("y:0", {"x:0": [[1, 10]]}), [[32]])
    assert read.node[2].attr["transpose_a"].WhichOneof("value") == "b"


def test_a_tensor_without_numbers_is_named():
    node = new_graph().node.add()
    node.attr["value"].tensor.dtype = 7
    with pytest.raises(UserError, match=r"node 'n': tensor of data type 7"):
        tensor_to_array(node.attr["value"].tensor, "node 'n'")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.pb", b"\x89HDF\r\n\x1a\n", "is an H5 file; name it with keras_h5 instead of frozen_pb"),
        ("m.pb", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer.*git lfs pull"),
        ("m.pb", b"<!DOCTYPE html>", r"web page \(HTML\), not a frozen graph"),
        (
            "m.tflite",
            b"\x1c\0\0\0TFL3\0\0",
            "TensorFlow Lite file, not a frozen graph; .*variables as con",
        ),
        ("m.pb", b"", "is empty"),
        ("m.pb", b'node { name: "x" }', "not a binary GraphDef.*pbtxt"),
        ("m.pb", b"\n{broken", "not a binary GraphDef"),
    ],
)
def test_another_kind_of_file_is_called_what_it_is(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        read_graph_def(tmp_path / name)
    assert str(tmp_path / name) in str(raised.value)


@pytest.mark.parametrize("length", [ord("{"), ord("<"), ord(" ")])
def test_a_graph_whose_first_bytes_look_like_a_text_is_read(tmp_path, length):
    """A newline is the tag of the first node, the byte behind it the node's length."""
    graph = new_graph()
    node = graph.node.add(name="", op="Const")
    node.name = "x" * (length - node.ByteSize() - 2)
    write_graph_def(tmp_path / "g.pb", graph)
    assert (tmp_path / "g.pb").read_bytes()[:2] == bytes([10, length])
    assert read_graph_def(tmp_path / "g.pb").node[0].name == node.name
