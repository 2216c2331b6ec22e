"""Reading frozen graphs: equal to TensorFlow on every op, clear about what it cannot read."""

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.quantize.engine import run_float
from dpuflow.quantize.folding import fold
from dpuflow.tfgraph.graph_def import add_constant, add_node, new_graph, read_graph_def, write_graph_def
from dpuflow.tfgraph.graph_reader import read_network, read_network_and_nodes

RANDOM = np.random.default_rng(5)


def constant(*shape, low=-1.0, high=1.0):
    return RANDOM.uniform(low, high, shape).astype(np.float32)


def batch_norm(tf, x, scale=1.0):
    c = x.shape[-1]
    return tf.compat.v1.nn.fused_batch_norm(
        x, constant(c, low=0.5, high=1.5) * scale, constant(c), constant(c), constant(c, low=0.5, high=2),
        epsilon=1e-3, is_training=False,
    )[0]  # fmt: skip


def decomposed_batch_norm(tf, x):
    c = x.shape[-1]
    factor = tf.math.rsqrt(tf.constant(constant(c, low=0.5, high=2)) + 1e-3) * constant(c, low=0.5, high=1.5)
    return x * factor + (constant(c) - constant(c) * factor)


def conv(tf, x, filters, kernel=3, strides=1, padding="SAME", **options):
    return tf.nn.conv2d(x, constant(kernel, kernel, x.shape[-1], filters), strides, padding, **options)


def dilated_in_blocks(tf, x, filters, rate, padding):
    """SpaceToBatchND - Conv2D - BatchToSpaceND, as tf.nn.convolution writes a dilated one."""
    kernel = constant(3, 3, x.shape[-1], filters)
    return tf.nn.with_space_to_batch(
        x, rate, padding, lambda y, _, __: tf.nn.conv2d(y, kernel, 1, "VALID"), filter_shape=kernel.shape
    )


def keras_flatten(tf, x):
    """The Shape - StridedSlice - Pack - Reshape pattern of Keras."""
    return tf.reshape(x, tf.stack([tf.shape(x)[0], int(np.prod(x.shape[1:]))]))


def dense(tf, x, units):
    return tf.matmul(x, constant(x.shape[-1], units, low=-0.3, high=0.3)) + constant(units)


def residual(tf, x):
    y = tf.nn.relu(batch_norm(tf, conv(tf, x, 4)))
    z = tf.nn.bias_add(conv(tf, y, 4), constant(4))
    return tf.nn.relu(z + y)


BUILDERS = {
    "conv_same_stride": lambda tf, x: tf.nn.relu(tf.nn.bias_add(conv(tf, x, 5, strides=2), constant(5))),
    "conv_valid": lambda tf, x: conv(tf, x, 3, kernel=2, padding="VALID"),
    "conv_explicit": lambda tf, x: conv(tf, x, 3, padding=[[0, 0], [2, 0], [1, 0], [0, 0]]),
    "conv_dilated": lambda tf, x: conv(tf, x, 3, dilations=2),
    "pad_conv": lambda tf, x: conv(
        tf, tf.pad(x, [[0, 0], [0, 1], [1, 0], [0, 0]]), 3, strides=2, padding="VALID"
    ),
    "depthwise": lambda tf, x: tf.nn.depthwise_conv2d(x, constant(3, 3, 2, 1), [1, 1, 1, 1], "SAME"),
    "depthwise_multiplier": lambda tf, x: tf.nn.depthwise_conv2d(
        x, constant(3, 3, 2, 3), [1, 2, 2, 1], "SAME"
    ),
    "fused_batch_norm": lambda tf, x: tf.nn.relu(batch_norm(tf, conv(tf, x, 4))),
    "decomposed_batch_norm": lambda tf, x: tf.nn.relu(decomposed_batch_norm(tf, conv(tf, x, 4))),
    "relu6": lambda tf, x: tf.nn.relu6(8 * conv(tf, x, 4)),
    "minimum_relu6": lambda tf, x: tf.minimum(tf.maximum(8 * conv(tf, x, 4), 0.0), 6.0),
    "leaky_relu": lambda tf, x: tf.nn.leaky_relu(conv(tf, x, 4), 26 / 256),
    "leaky_maximum": lambda tf, x: tf.maximum(26 / 256 * x, x),
    "max_pool_same": lambda tf, x: tf.nn.max_pool2d(conv(tf, x, 3), 3, 2, "SAME"),
    "pad_max_pool": lambda tf, x: tf.nn.max_pool2d(
        tf.pad(tf.nn.relu(x), [[0, 0], [1, 1], [1, 1], [0, 0]]), 3, 2, "VALID"
    ),
    "relu_behind_pool": lambda tf, x: tf.nn.relu(tf.nn.max_pool2d(conv(tf, x, 3), 2, 2, "VALID")),
    "avg_pool": lambda tf, x: tf.nn.avg_pool2d(x, [2, 3], [2, 1], "VALID"),
    "mean_keep": lambda tf, x: conv(tf, tf.reduce_mean(x, [1, 2], keepdims=True), 3, kernel=1),
    "mean_flat": lambda tf, x: dense(tf, tf.reduce_mean(x, [1, 2]), 3),
    "mean_squeeze": lambda tf, x: tf.squeeze(tf.reduce_mean(x, [1, 2], keepdims=True), [1, 2]),
    "concat_relu": lambda tf, x: tf.nn.relu(tf.concat([conv(tf, x, 3), conv(tf, x, 2)], -1)),
    "residual": residual,
    "conv_read_twice": lambda tf, x: (lambda y: tf.nn.relu(y) + y)(conv(tf, x, 3)),
    "flatten_dense": lambda tf, x: tf.nn.softmax(
        dense(tf, tf.nn.relu(dense(tf, keras_flatten(tf, x), 7)), 5)
    ),
    "reshape_minus_one": lambda tf, x: dense(tf, tf.reshape(x, [-1, 7 * 6 * 2]), 4),
    "dropout_leftovers": lambda tf, x: tf.identity(tf.nn.relu(x) / 1.0) * 1.0,
    "scaled_input": lambda tf, x: conv(tf, (x - 0.5) * 2.0, 3, padding="VALID"),
    "bn_relu_conv": lambda tf, x: conv(tf, tf.nn.relu(batch_norm(tf, conv(tf, x, 3) + conv(tf, x, 3))), 2),
    "conv_relu_bn_conv": lambda tf, x: conv(tf, batch_norm(tf, tf.nn.relu(conv(tf, x, 4))), 3),
    "conv_relu_bn_pool_conv": lambda tf, x: conv(
        tf, tf.nn.max_pool2d(batch_norm(tf, tf.nn.relu(conv(tf, x, 4))), 2, 2, "VALID"), 3
    ),
    "conv_relu_bn_negative_pool": lambda tf, x: conv(
        tf, tf.nn.max_pool2d(batch_norm(tf, tf.nn.relu(conv(tf, x, 4)), -1.0), 2, 2, "VALID"), 3
    ),
    "conv_relu_bn_avg_flatten_dense": lambda tf, x: dense(
        tf, keras_flatten(tf, tf.nn.avg_pool2d(batch_norm(tf, tf.nn.relu(conv(tf, x, 4))), 2, 2, "VALID")), 3
    ),
    "conv_relu_bn_twice_read": lambda tf, x: (
        lambda y: conv(tf, y, 3, padding="VALID") + conv(tf, y, 3, padding="VALID")
    )(batch_norm(tf, tf.nn.relu(conv(tf, x, 4)))),
    "conv_relu_bn_depthwise": lambda tf, x: tf.nn.depthwise_conv2d(
        batch_norm(tf, tf.nn.relu(conv(tf, x, 2))), constant(3, 3, 2, 1), [1, 1, 1, 1], "SAME"
    ),
    "conv_grouped": lambda tf, x: tf.nn.relu(tf.nn.conv2d(x, constant(3, 3, 1, 4), 2, "SAME")),
    "conv_dilated_in_blocks": lambda tf, x: tf.nn.relu(
        tf.nn.bias_add(dilated_in_blocks(tf, x, 4, [2, 3], "SAME"), constant(4))
    ),
    "conv_dilated_in_blocks_valid": lambda tf, x: dilated_in_blocks(tf, x, 3, [2, 2], "VALID"),
    "depthwise_dilated": lambda tf, x: tf.nn.depthwise_conv2d(
        x, constant(3, 3, 2, 1), [1, 1, 1, 1], "SAME", dilations=[2, 2]
    ),
    "relu_inside_dilated": lambda tf, x: tf.nn.with_space_to_batch(
        x,
        [2, 2],
        "SAME",
        lambda y, _, __: tf.nn.relu(tf.nn.conv2d(y, constant(3, 3, 2, 3), 1, "VALID") + constant(3)),
        filter_shape=[3, 3, 2, 3],
    ),
    "dense_on_a_map": lambda tf, x: tf.nn.relu(
        tf.nn.bias_add(tf.tensordot(x, constant(2, 5), [[3], [0]]), constant(5))
    ),
    "dense_on_rows_of_pixels": lambda tf, x: tf.reshape(
        tf.nn.relu(tf.matmul(tf.reshape(x, [-1, 2]), constant(2, 5)) + constant(5)), [-1, 7, 6, 5]
    ),
    "global_max": lambda tf, x: dense(tf, tf.reduce_max(x, [1, 2]), 3),
    "global_max_keep": lambda tf, x: conv(
        tf, tf.reduce_max(conv(tf, x, 4), [1, 2], keepdims=True), 3, kernel=1
    ),
    "add_n": lambda tf, x: tf.nn.relu(tf.add_n([conv(tf, x, 3), conv(tf, x, 3), conv(tf, x, 3)])),
    "old_concat": lambda tf, x: tf.raw_ops.Concat(concat_dim=3, values=[conv(tf, x, 3), x]),
    "max_pool_v2": lambda tf, x: tf.raw_ops.MaxPoolV2(
        input=x, ksize=[1, 2, 3, 1], strides=[1, 2, 1, 1], padding="VALID"
    ),
    "fully_convolutional_softmax": lambda tf, x: tf.nn.softmax(
        conv(tf, tf.reduce_mean(x, [1, 2], keepdims=True), 3, kernel=1)
    ),
    "softmax_squeezed": lambda tf, x: tf.squeeze(
        tf.nn.softmax(conv(tf, tf.reduce_mean(x, [1, 2], keepdims=True), 3, kernel=1)), [1, 2]
    ),
    "channels_reversed": lambda tf, x: conv(tf, x[..., ::-1] - constant(2), 3),
    "channels_gathered": lambda tf, x: dense(tf, keras_flatten(tf, tf.gather(x, [1, 0, 1], axis=-1)), 3),
    "reverse_v2": lambda tf, x: tf.nn.max_pool2d(tf.reverse(x, [-1]), 2, 2, "VALID"),
    "groups_written_out": lambda tf, x: tf.concat([conv(tf, part, 2) for part in tf.split(x, 2, -1)], -1),
    "vector_slice": lambda tf, x: dense(tf, dense(tf, keras_flatten(tf, x), 6)[:, 1:4], 3),
    "dropout_in_inference": lambda tf, x: tf.compat.v1.nn.dropout(
        x, keep_prob=tf.compat.v1.placeholder_with_default(0.5, [], name="keep_prob")
    ),
    "dense_relu_bn_softmax": lambda tf, x: tf.nn.softmax(
        tf.nn.relu(dense(tf, keras_flatten(tf, x), 6)) * constant(6) + constant(6)
    ),
}


@pytest.fixture(scope="module")
def tf():
    from dpuflow.base.tensorflow_env import tensorflow

    return tensorflow()


@pytest.mark.parametrize("name", BUILDERS)
def test_reads_and_folds_as_tensorflow_computes(tf, name, tmp_path):
    x = RANDOM.normal(size=(4, 7, 6, 2)).astype(np.float32)
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        tf.compat.v1.set_random_seed(1)
        placeholder = tf.compat.v1.placeholder(tf.float32, [None, 7, 6, 2], name="images")
        y = tf.identity(BUILDERS[name](tf, placeholder), name="result")
        inference = {f"{n.name}:0": 1.0 for n in graph.as_graph_def().node if n.name == "keep_prob"}
        expected = session.run(y, {placeholder: x, **inference})
        (tmp_path / "g.pb").write_bytes(graph.as_graph_def().SerializeToString())
    network, nodes = read_network_and_nodes(tmp_path / "g.pb")
    assert nodes == {"input": "images", "output": "result"}
    expected = expected.reshape(len(x), *network.output.shape)
    np.testing.assert_allclose(run_float(network, x)[network.output.name], expected, atol=2e-5)
    for how in ("fold", "depthwise"):
        folded, _ = fold(network, how)
        got = run_float(folded, x)[folded.output.name]
        np.testing.assert_allclose(got, expected, atol=1e-4)
        left = {layer.op for layer in folded.layers}
        assert not left & {"batch_norm", "relu", "relu6", "leaky_relu"}


def small_graph(op="Relu", **attributes):
    """input -> op -> Softmax, without TensorFlow and without any default attribute."""
    graph = new_graph()
    add_node(graph, "Placeholder", "in", dtype=("type", 1), shape=("shape", [-1, 2, 2, 1]))
    add_node(graph, op, "model/act/it", ["in"], **attributes)
    add_constant(graph, "shape", np.array([-1, 4], np.int32))
    add_node(graph, "Reshape", "model/flat/Reshape", ["model/act/it", "shape"])
    add_node(graph, "Softmax", "model/out/Softmax", ["model/flat/Reshape"])
    return graph


def test_missing_attributes_mean_tensorflows_defaults(tmp_path):
    graph = small_graph("LeakyRelu")
    write_graph_def(tmp_path / "g.pb", graph)
    assert read_network(tmp_path / "g.pb")["act"].attrs["alpha"] == pytest.approx(0.2)


def test_layers_are_named_after_their_scopes(tmp_path):
    write_graph_def(tmp_path / "g.pb", small_graph())
    network = read_network(tmp_path / "g.pb", name="net")
    assert [layer.name for layer in network.layers] == ["in", "act", "flat", "out"]
    assert network.name == "net"


@pytest.mark.parametrize(
    ("op", "attributes", "message"),
    [
        ("Elu", {}, r"node 'model/act/it' \(op Elu\): not supported"),
        ("VarHandleOp", {}, "not frozen"),
        ("MaxPool", {"data_format": "NCHW"}, "NHWC"),
        (
            "MaxPool",
            {"ksize": [1, 5, 5, 1], "strides": [1, 1, 1, 1], "padding": "VALID"},
            "larger than its input",
        ),
    ],
)
def test_unsupported_nodes_are_named_with_advice(tmp_path, op, attributes, message):
    write_graph_def(tmp_path / "g.pb", small_graph(op, **attributes))
    with pytest.raises(UserError, match=message):
        read_network(tmp_path / "g.pb")


def test_output_may_end_the_graph_before_an_unsupported_node(tmp_path):
    graph = small_graph()
    add_node(graph, "ArgMax", "class", ["model/out/Softmax"])
    write_graph_def(tmp_path / "g.pb", graph)
    with pytest.raises(UserError, match=r"'class'.*ArgMax"):
        read_network(tmp_path / "g.pb")
    assert read_network(tmp_path / "g.pb", output_name="model/out/Softmax:0").output.op == "softmax"


def test_several_inputs_or_outputs_are_listed(tmp_path):
    graph = small_graph()
    add_node(graph, "Identity", "other", ["in"])
    write_graph_def(tmp_path / "g.pb", graph)
    with pytest.raises(UserError, match=r"found 2: model/out/Softmax, other"):
        read_network(tmp_path / "g.pb")
    graph = small_graph()
    add_node(graph, "Placeholder", "rate", dtype=("type", 1))
    graph.node[1].input.append("rate")
    write_graph_def(tmp_path / "g.pb", graph)
    with pytest.raises(UserError, match="one input placeholder, found 2: in, rate"):
        read_network(tmp_path / "g.pb")


def test_open_input_sizes_need_a_shape(tmp_path):
    graph = small_graph()
    graph.node[0].attr["shape"].shape.dim[1].size = -1
    write_graph_def(tmp_path / "g.pb", graph)
    with pytest.raises(UserError, match="come from the data set"):
        read_network(tmp_path / "g.pb")
    assert read_network(tmp_path / "g.pb", input_shape=(2, 2, 1)).input.shape == (2, 2, 1)


@pytest.mark.fault("models", "frozen graph that is none", "refused")
@pytest.mark.parametrize("content", [b"node { name: 'x' }", b"", b"\x00\x01\x02"])
def test_files_that_are_no_graph_are_refused(tmp_path, content):
    path = tmp_path / "g.pb"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"g\.pb"):
        read_graph_def(path)
    with pytest.raises(UserError, match=r"absent\.pb: no such file"):
        read_graph_def(tmp_path / "absent.pb")


@pytest.mark.fault("models", "frozen graph incomplete or cyclic", "refused")
def test_incomplete_and_cyclic_graphs_are_refused(tmp_path):
    graph = small_graph()
    graph.node[1].input[0] = "gone"
    write_graph_def(tmp_path / "g.pb", graph)
    with pytest.raises(UserError, match="'gone' is read but missing"):
        read_network(tmp_path / "g.pb")
    graph.node[1].input[0] = "model/flat/Reshape"
    write_graph_def(tmp_path / "g.pb", graph)
    with pytest.raises(UserError, match="loop"):
        read_network(tmp_path / "g.pb")
