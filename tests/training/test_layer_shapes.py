"""The shapes that are checked before training are those of the network that training makes."""

import pytest

from dpuflow.base.errors import UserError
from dpuflow.keras_models.keras_file import save_model
from dpuflow.quantize.folding import fold
from dpuflow.tfgraph.checkpoint import convert
from dpuflow.tfgraph.freeze import freeze
from dpuflow.tfgraph.graph_reader import read_network
from dpuflow.training.layer_shapes import LAYERS, network_of
from dpuflow.training.model_builder import LAYERS as BUILT
from dpuflow.training.model_builder import build_model
from dpuflow.training.trainer import compile_model

EVERY_KIND = [
    {
        "conv": {
            "filters": 6,
            "kernel": 4,
            "stride": 2,
            "batch_norm": "before_activation",
            "activation": "relu6",
        }
    },
    {"conv": {"filters": 5, "padding": "valid", "activation": "leaky_relu"}},
    {"depthwise_conv": {"kernel": 3, "stride": 2, "activation": "relu"}},
    "depthwise_conv",
    {"max_pool": {"kernel": 3, "stride": 1, "padding": "same"}},
    {"avg_pool": {"stride": 1}},
    {"avg_pool": {"kernel": 3, "stride": 2, "padding": "same"}},
    {"residual": {"layers": [{"conv": {"filters": 7, "stride": 2}}]}},
    {"residual": {"layers": [{"conv": {"filters": 7}}], "activation": "none"}},
    {
        "concat": {
            "branches": [
                [{"conv": {"filters": 3, "kernel": 1}}],
                [{"max_pool": {"kernel": 3, "stride": 1, "padding": "same"}}],
            ]
        }
    },
    {"upsample": 2},
    {"squeeze_excite": 2},
    {"transposed_conv": {"filters": 4, "kernel": 3, "activation": "relu"}},
    {"upsample": {"factor": 2, "interpolation": "bilinear"}},
    {"dropout": 0.1},
    "flatten",
    {"dense": {"units": 9, "activation": "relu"}},
    {"dense": 8},
]
POOLED = [{"conv": {"filters": 4}}, {"max_pool": 2}, "global_average_pool"]
GATED = [
    {"conv": {"filters": 8, "activation": "hard_swish", "batch_norm": "before_activation"}},
    {"space_to_depth": 2},
    {"conv": {"filters": 8, "groups": 2, "dilation": 2, "activation": "hard_sigmoid"}},
    {"depthwise_conv": {"multiplier": 2, "activation": "relu", "stride": 2}},
    {"depthwise_conv": {"dilation": 2, "activation": "hard_swish"}},
    {"conv": {"filters": 6, "padding": "valid", "dilation": 2}},
    "global_max_pool",
    {"dense": {"units": 9, "activation": "hard_swish"}},
]
GREY = [{"space_to_depth": 2}, {"depth_to_space": 2}, {"conv": {"filters": 2, "kernel": 1}}, "flatten"]

HEADS = [
    {"conv": {"filters": 6, "stride": 2}},
    {"concat": {"branches": [[], [{"max_pool": 2}, "head", {"conv": {"filters": 4}}, {"upsample": 2}]]}},
    {"head": {"anchors": 2}},
]
MASK = [
    *HEADS[:1],
    {"concat": {"branches": [[], [{"conv": {"filters": 3}}]]}},
    {"transposed_conv": {"filters": 4}},
]


def facts(network):
    """What the checks of a target look at, layer by layer; reshapes of a vector left out."""
    found = []
    for layer in network.layers:
        if layer.op != "flatten":
            inputs = [network[name].op for name in layer.inputs]
            attrs = {key: value for key, value in layer.attrs.items() if key != "alpha"}
            found.append((layer.op, inputs, layer.shape, attrs))
    return sorted(found, key=str)


@pytest.mark.parametrize(
    ("layers", "shape"),
    [(EVERY_KIND, (29, 20, 3)), (POOLED, (28, 28, 1)), (GATED, (24, 32, 3)), (GREY, (8, 8, 1))],
    ids=["every kind", "pooled", "gated", "grey"],
)
def test_they_are_those_of_the_frozen_and_folded_network(tmp_path, layers, shape):
    model = build_model(layers, shape, 10, "m")
    compile_model(model, {"optimizer": "adam", "learning_rate": 1e-3})
    save_model(model, tmp_path / "m.h5")
    nodes = convert(tmp_path / "m.h5", tmp_path / "tf")
    freeze(tmp_path / "tf", nodes, tmp_path / "frozen_graph.pb")
    folded, _ = fold(read_network(tmp_path / "frozen_graph.pb"))
    assert facts(network_of(layers, shape, 10, "m")) == facts(folded)


@pytest.mark.parametrize(
    ("layers", "task", "expected"),
    [
        (HEADS, "detection", [(4, 6, 3 * 15), (8, 12, 2 * 15)]),
        (MASK, "segmentation", [(16, 24, 10)]),
    ],
)
def test_the_ends_of_other_tasks_are_those_of_the_built_network(layers, task, expected):
    model = build_model(layers, (16, 24, 3), 10, "m", task)
    network = network_of(layers, (16, 24, 3), 10, "m", task)
    assert [layer.shape for layer in network.outputs.values()] == expected
    assert [tuple(output.shape[1:]) for output in model.outputs] == expected
    with pytest.raises(UserError, match=r"mask has a class for each|ends with a head"):
        network_of([*layers, {"conv": {"filters": 2, "stride": 2}}], (16, 24, 3), 10, "m", task)


def test_both_know_the_same_kinds_of_layers():
    assert LAYERS.keys() == BUILT.keys()
    used = {
        next(iter(entry)) if isinstance(entry, dict) else entry
        for entry in EVERY_KIND + POOLED + GATED + GREY + HEADS
    }
    assert used == LAYERS.keys()
