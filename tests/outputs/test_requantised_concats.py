"""Inputs of a concatenation that others read, too, keep a finer grid where that loses less."""

import numpy as np
import pytest
from output_networks import SCALING, Maker, images

from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.isa.runner import IsaRunner
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.emulator import Emulator
from dpuflow.network import Network
from dpuflow.network.check import check
from dpuflow.quantize import calibration
from dpuflow.quantize.reference import quantize

PLAIN = {"fast_finetune": False, "equalization": False, "position_search": {"criterion": None}}


def joined(scale):
    """Two maps, the first `scale` times as large; the second is read behind the concatenation and alone."""
    m = Maker(4)
    x = m.relu(m.conv("trunk", m.input("image", (8, 8, 3)), 8))
    large, small = m.conv("large", x, 6), m.conv("small", x, 6)
    for layer in m.layers:
        if layer.name == "large":
            layer.weights, layer.bias = layer.weights * np.float32(scale), layer.bias * np.float32(scale)
    both = m.add("both", "concat", [large, small], (8, 8, 12), axis=3)
    m.conv("end", both, 4)
    m.conv("fine", m.relu(m.conv("next", small, 6)), 4)
    return Network("joined", m.layers, {"end": "end", "fine": "fine"})


@pytest.fixture(scope="module")
def made():
    network = joined(16)
    pixels = images(network, 12)
    return (*quantize(network, pixels, PLAIN, SCALING), pixels)


def test_the_finer_input_is_copied_in_front_of_the_concatenation(made):
    quantized, report, _ = made
    before, after = report["steps"]
    assert (
        after["step"] == "requantised_concats" and after["kept"] and after["why"] == "small in front of both"
    )
    assert after["divergence"] < 0.5 * before["divergence"]
    check(quantized)
    points = quantized.fix_points
    assert quantized.network["both"].inputs == ["large", "both/small"]
    assert points["small"] >= points["both"] + 3
    assert points["both/small"] == points["large"] == points["both"]
    assert set(np.unique(quantized.weights["both/small"][0])) <= {64, 32, 16, 8, 4, 2, 1}


def test_its_machine_code_is_the_emulators_bit_for_bit(made):
    quantized, _, pixels = made
    graph = compile_native(quantized, get_target("kv260"), calibration=pixels["image"]).graph
    emulator = Emulator(graph, threads=1)
    batch = emulator.quantize_input(pixels["image"])
    expected, found = emulator.run(batch), IsaRunner(graph).run(batch)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


def test_nothing_is_copied_where_the_maps_are_alike():
    network = joined(1)
    quantized, report = quantize(network, images(network, 12), PLAIN, SCALING)
    assert [step["step"] for step in report["steps"] if step.get("kept", True)] == ["positions"]
    assert quantized.network["both"].inputs == ["large", "small"]


def test_the_copy_rounds_as_a_concatenation_of_unequal_fix_points_does(made):
    """A concat-fix of such inputs shifts and rounds each (vendor's files have them)."""
    quantized = made[0]
    values = np.arange(-128, 128, dtype=np.float32).reshape(1, 1, -1, 1).repeat(6, axis=3)
    layer, points = quantized.network["both/small"], quantized.fix_points
    got = layer.operator.integer(
        [values], [points["small"]], points["both"], quantized.weights[layer.name], None
    )
    wanted = calibration.to_grid(values * np.float32(2.0 ** -points["small"]), points["both"])
    np.testing.assert_array_equal(got, wanted)
