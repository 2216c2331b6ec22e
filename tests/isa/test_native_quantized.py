"""From graph to machine code: raw pixels 0..255 under `compat: vai_q`, additions of far positions."""

import numpy as np
import pytest

from dpuflow.compiler.reference import lower
from dpuflow.device.dpuczdx8g import is_exact_add, stored_bias
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.isa.runner import IsaRunner
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.emulator import Emulator
from dpuflow.quantize.engine import run_integer
from dpuflow.quantize.reference import quantize
from dpuflow.tfgraph.graph_def import add_constant
from dpuflow.tfgraph.graph_reader import read_network
from tests.quantize.frozen_networks import GraphMaker

TARGET = get_target("DPUCZDX8G_ISA1_B4096")


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """(QuantizedNetwork, images) of a network that takes pixels as they are."""
    maker = GraphMaker((12, 12, 1))
    x = maker.op("Relu", maker.conv(maker.input, 1, 8))
    x = maker.pool(maker.op("Relu", maker.conv(x, 8, 12)))
    x = maker.flatten(x, 6 * 6 * 12)
    path = tmp_path_factory.mktemp("raw") / "raw.pb"
    maker.write(path, maker.dense(x, 6 * 6 * 12, 5))
    images = np.random.default_rng(1).integers(0, 256, (60, 12, 12, 1), np.uint8)
    scaling = {"subtract": 0, "divide": 1}
    return quantize(read_network(path), images, {"compat": "vai_q", "diagnosis": False}, scaling)[0], images


def test_raw_pixels_through_every_stage(raw):
    quantized, images = raw
    shifts = {name: quantized.shift_bias(name) for name in quantized.biases}
    assert min(shifts.values()) <= -4, shifts
    compiled = compile_native(quantized, TARGET, calibration=images)
    for name, shift in shifts.items():
        bias, fix_point = quantized.biases[name]
        op = compiled.graph.op(f"{name}_bias")
        assert op.tensor.fix_point == fix_point  # as the vendor leaves it
        reference = lower(quantized, TARGET).op(f"{name}_bias").array()
        np.testing.assert_array_equal(reference, np.floor(bias * 2.0 ** min(0, shift + 1)))
    steps = next(iter(IsaRunner(compiled.graph).simulators.values())).steps
    fields = {step.instruction["shift_bias"] for step in steps if step.instruction.name == "CONVINIT"}
    assert fields == {max(shift, -1) + 1 for shift in shifts.values()}
    runner, uncompiled = IsaRunner(compiled.graph), Emulator(compiled.quantized_graph)
    batch = runner.quantize_input(images)
    logits = quantized.network.output.inputs[0]
    expected = run_integer(quantized, batch, [logits])[logits]
    np.testing.assert_array_equal(runner.logits(batch).reshape(60, 5), expected)
    np.testing.assert_array_equal(Emulator(compiled.graph).run(batch), runner.run(batch))
    np.testing.assert_array_equal(uncompiled.run(batch), runner.run(batch))
    assert len(np.unique(expected)) > 20


def test_what_is_stored():
    bias = np.array([-128, -5, -1, 0, 1, 7, 127], np.int8)
    for shift in (-1, 0, 3):
        np.testing.assert_array_equal(stored_bias(bias, shift), bias)
    np.testing.assert_array_equal(stored_bias(bias, -2), [-64, -3, -1, 0, 0, 3, 63])
    np.testing.assert_array_equal(stored_bias(bias, -4), [-16, -1, -1, 0, 0, 0, 15])
    np.testing.assert_array_equal(stored_bias(bias, -16), [-1, -1, -1, 0, 0, 0, 0])


@pytest.mark.parametrize("settings", [{}, {"position_search": {"criterion": "logit_error"}}])
def test_additions_of_far_positions(tmp_path, settings):
    """ReLU cuts a large negative branch, so the sum is far finer than it: the quantizer bounds that."""
    maker = GraphMaker((8, 8, 3))
    stem = maker.op("Relu", maker.conv(maker.input, 3, 6))
    factors = add_constant(maker.graph, "factors", np.full(6, -900, np.float32))
    large, small = maker.op("Mul", stem, factors), maker.op("Relu", maker.conv(maker.input, 3, 6))
    x = maker.op("Relu", maker.op("AddV2", large, small))
    x = maker.flatten(maker.pool(x), 4 * 4 * 6)
    maker.write(tmp_path / "far.pb", maker.dense(x, 4 * 4 * 6, 5))
    images = np.random.default_rng(1).integers(0, 256, (40, 8, 8, 3), np.uint8)
    quantized, report = quantize(read_network(tmp_path / "far.pb"), images, {"diagnosis": False, **settings})
    (add,) = (layer for layer in quantized.network.layers if layer.op == "add")
    assert f"addition {add.name} is exact so" in [change["why"] for change in report["adjustments"]]
    fixes = [quantized.fix_points[name] for name in add.inputs]
    assert max(fixes) - min(fixes) > 2 and is_exact_add(fixes, quantized.fix_points[add.name])
    graph = compile_native(quantized, TARGET, calibration=images).graph
    runner = IsaRunner(graph)
    batch = runner.quantize_input(images)
    np.testing.assert_array_equal(runner.run(batch), Emulator(graph).run(batch))
