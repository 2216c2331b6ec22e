"""Channels divided by different numbers: folded where that is exact, refused where the grid is too coarse."""

import numpy as np
import pytest
from frozen_networks import GraphMaker

from dpuflow.base.errors import UserError
from dpuflow.base.pixels import MODES, scale_pixels
from dpuflow.compiler.reference import lower
from dpuflow.device.targets import get_target
from dpuflow.emulator import Emulator
from dpuflow.quantize.engine import run_float
from dpuflow.quantize.eval_graph import write_eval_graph
from dpuflow.quantize.folding import fold
from dpuflow.quantize.input_grid import one_grid
from dpuflow.quantize.reference import quantize
from dpuflow.tfgraph.graph_reader import read_network

FAR = {"subtract": [120, 110, 100], "divide": [1, 60, 3000], "order": "bgr"}
SETTINGS = {"fast_finetune": False, "diagnosis": False, "position_search": {"criterion": None}}


def images(count=24, seed=3):
    return np.random.default_rng(seed).integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)


def colour_network(path, first="Conv2D"):
    """A network of colour images; first: what reads the input."""
    g = GraphMaker((12, 12, 3))
    if first == "both":  # two convolutions read it, one of them depthwise
        x = g.op("Add", g.conv(g.input, 3, 3, depthwise=True), g.conv(g.input, 3, 3))
        x = g.conv(g.op("Relu", x), 3, 8)
    else:
        x = g.conv(g.pool(g.input) if first == "MaxPool" else g.input, 3, 8)
    x = g.pool(g.op("Relu", x))
    size = 72 if first == "MaxPool" else 288
    return g.write(path, g.dense(g.flatten(x, size), size, 5))


@pytest.mark.parametrize("scaling", [MODES["torch"], FAR], ids=["torch", "far"])
@pytest.mark.parametrize("first", ["Conv2D", "both"])
def test_the_divisors_fold_into_convolutions_exactly(tmp_path, scaling, first):
    network, notes = fold(read_network(colour_network(tmp_path / "m.pb", first)))
    x = scale_pixels(images(), scaling)
    before = run_float(network, x)[network.output.name]
    changed, gained, notes = one_grid(network, notes, scaling)
    after = run_float(changed, scale_pixels(images(), gained))[changed.output.name]
    np.testing.assert_allclose(after, before, rtol=2e-5, atol=1e-6)
    readers = 2 if first == "both" else 1
    assert [note["layer"] for note in notes].count(network.input.name) == readers
    # the widest channel reaches the end of an int8 grid of fix_point 7, and no channel goes beyond it
    reach = np.abs(scale_pixels(np.array([0, 255], np.uint8).repeat(3).reshape(1, 1, 2, 3), gained)) * 128
    assert reach.max() == pytest.approx(127) and reach.max(axis=(0, 1, 2)).min() > 100


@pytest.mark.parametrize("scaling", [*MODES.values(), FAR], ids=[*MODES, "far"])
def test_emulator_and_evaluation_graph_agree_on_pixels(tmp_path, scaling):
    """The evaluation graph takes what the frozen graph takes; the xmodel says what becomes of pixels."""
    from dpuflow.tfgraph.freeze import FrozenGraph

    quantized, report = quantize(read_network(colour_network(tmp_path / "m.pb")), images(), SETTINGS, scaling)
    assert ("gain" in report["input_scaling"]) == isinstance(scaling["divide"], list)
    path = tmp_path / "m.xmodel"
    lower(quantized, get_target("kv260")).save(path)
    with Emulator(path) as emulator:
        unseen = images(40, seed=8)
        emulated = emulator.run(emulator.quantize_input(unseen))
    names = write_eval_graph(tmp_path / "eval.pb", quantized)
    graph = FrozenGraph(tmp_path / "eval.pb", names["input"], names["output"])
    np.testing.assert_allclose(graph.run(scale_pixels(unseen, scaling)), emulated, rtol=1e-5, atol=1e-7)
    network = read_network(tmp_path / "m.pb")
    expected = run_float(network, scale_pixels(unseen, scaling))[network.output.name]
    assert (emulated.argmax(1) == expected.argmax(1)).mean() > 0.9


@pytest.mark.parametrize(
    ("first", "settings", "why"),
    [
        ("MaxPool", SETTINGS, r"maxpool\S* \(max_pool\) reads the input"),
        ("Conv2D", {"compat": "vai_q"}, "compat: vai_q changes no network"),
    ],
)
@pytest.mark.fault("configuration", "divisors that one int8 grid cannot hold", "refused")
def test_channels_that_do_not_fit_one_grid_are_refused(tmp_path, first, settings, why):
    network = read_network(colour_network(tmp_path / "m.pb", first))
    words = rf"input.divide: \[1.0, 60.0, 3000.0\] do not fit .* channel 2 keeps 1 of its 256 values .*{why}"
    with pytest.raises(UserError, match=words):
        quantize(network, images(), settings, FAR)
    assert "gain" not in quantize(network, images(), settings, MODES["torch"])[1]["input_scaling"]
