"""The compiler's own verification: it sees every map, takes every branch, finds wrong lowerings."""

import dataclasses

import numpy as np
import pytest
from test_native_xmodel import Builder, signs

from dpuflow.compiler.reference import lower
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.isa import engines
from dpuflow.dpuczdx8g.isa.code import decode, encode
from dpuflow.dpuczdx8g.isa.program import read_programs
from dpuflow.dpuczdx8g.isa.runner import IsaRunner
from dpuflow.dpuczdx8g.isa.simulator import Simulator
from dpuflow.dpuczdx8g.isa.steps import MachineCodeError
from dpuflow.dpuczdx8g.native import branches, lowering, probes, writer
from dpuflow.dpuczdx8g.native.compile import compile_graph
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.dpuczdx8g.native.verification import DisagreementError, verify
from dpuflow.emulator import Emulator
from dpuflow.quantize.engine import run_integer

TARGET = get_target("DPUCZDX8G_ISA1_B1600")
SAME = {"kernel": (3, 3), "stride": (1, 1), "dilation": (1, 1), "pad": (1, 1, 1, 1)}


def mobile(fix_point):
    """ReLU6 behind a convolution and a depthwise one, an add, padded pooling, a mean, a dense layer."""
    b = Builder((8, 7, 3), fix_point)
    stem = b.conv("input", 10, fix_point, "RELU6")
    weights, position = b.weights[stem]
    b.weights[stem] = (weights, position + fix_point - 4)  # keeps shift_cut, and the clamps in reach
    b.biases[stem] = (b.biases[stem][0], 13 + fix_point - 4)
    deep = b.layer("depthwise_conv", [stem], (8, 7, 10), fix_point, (1, 3, 3, 10), activation="RELU6", **SAME)
    added = b.layer("add", [stem, deep], (8, 7, 10), fix_point - 1, activation="NONE")
    pooled = b.layer("max_pool", [added], (4, 4, 10), kernel=(3, 3), stride=(2, 2), pad=(1, 1, 1, 0))
    mean = b.layer("avg_pool", [pooled], (1, 1, 10), kernel=(4, 4), stride=(4, 4), pad=(0, 0, 0, 0))
    return b.quantized(f"mobile{fix_point}", b.dense(b.flatten(mean), 6))


def calibration(network, count=20):
    return np.random.default_rng(2).integers(0, 256, (count, *network.network.input.shape), np.uint8)


@pytest.mark.parametrize("fix_point", [4, 5, 6, 9])
def test_relu6_at_every_fix_point(fix_point):
    """Clamped at integer 96 where that is 6.0, plain ReLU where 6.0 lies beyond 127."""
    network = mobile(fix_point)
    graph = compile_native(network, TARGET, calibration=calibration(network)).graph
    assert graph.op("conv1").attrs["nonlinear"] == "RELU6"
    simulator = next(iter(IsaRunner(graph).simulators.values()))
    engine = {s.instruction["act_type"] for s in simulator.steps if s.instruction.name == "CONVINIT"}
    assert engine == {4 if fix_point == 4 else 1, 0}
    images = np.random.default_rng(3).integers(-128, 128, (300, 8, 7, 3), np.int8)
    maps = Emulator(graph).run(images, dump=True)
    expected = run_integer(network, images, ["conv1", "dense7"])
    np.testing.assert_array_equal(maps["conv1"], expected["conv1"])
    assert maps["conv1"].max() == 96 if fix_point == 4 else maps["conv1"].max() > 96
    np.testing.assert_array_equal(IsaRunner(graph).logits(images).reshape(300, 6), expected["dense7"])


def test_the_record_says_what_was_compared():
    network = mobile(4)
    record = compile_native(network, TARGET, calibration=calibration(network)).report["verification"]
    assert record["maps"] == 6
    assert record["values_per_image"] == 8 * 7 * 10 * 3 + 4 * 4 * 10 + 10 + 6
    images = record["images"]
    assert images["compared"] == images["from_calibration"] + images["made"] >= 4
    assert images["from_calibration"] >= 2
    layers = {layer["layer"]: layer for layer in record["layers"]}
    assert layers["conv1"]["reached"] == ["clamps at 6", "cuts below zero", "rounds a half"]
    assert layers["max_pool4"]["reached"] == ["has negative values beside padding"]
    assert layers["add3"]["reached"] == ["rounds a half"]
    assert layers["avg_pool5"]["reached"] == ["rounds a half"]
    assert not any(layer["not_reached"] for layer in layers.values())
    assert record["branches"] == {"reached": 12, "possible": 12}
    assert "all 6 feature maps" in record["how"] and "12 of 12 branches" in record["how"]
    without = compile_native(network, TARGET).report["verification"]
    assert without["images"]["from_calibration"] == 0 < without["images"]["made"]


def test_a_branch_that_nothing_reaches_is_named():
    """Sums that never come near int8's ends are no branches; a half that no input gives is reported."""
    network = signs((16,), (5,))
    network.weights["dense4"] = (np.ones_like(network.weights["dense4"][0]), 15)
    network.biases.pop("dense4")
    layer = compile_native(network, TARGET).report["verification"]["layers"][-1]
    assert layer["reached"] == [] and layer["not_reached"] == ["rounds a half"]


def prepared(network):
    """(emulator of the reference graph, program with machine code, CompiledSubgraphs)."""
    graph = lower(network, TARGET)
    reference = Emulator(type(graph).from_bytes(graph.to_bytes()))
    compiled = compile_graph(graph)
    (program,) = read_programs(graph)
    return reference, program, compiled


def survives(network, reference, program, compiled):
    """Whether code passes the checks and the verification."""
    try:
        verify(network, reference, {program.name: Simulator(program)}, compiled)
    except (DisagreementError, MachineCodeError):
        return False
    return True


CHANGES = {
    "CONVINIT": {"shift_cut": (-1, 1), "shift_bias": (-1, 1)},
    "CONV": {"pad_top": (1, -1), "pad_left": (1, -1)},
    "ALUINIT": {"shift_cut": (-1, 1), "shift_bias": (-1, 1), "multi_factor": (-1, 1)},
    "ALU": {"pad_top": (1, -1), "pad_left": (1, -1)},
    "ELEWINIT": {"shift_read": (1,)},
    "ELEW": {"shift_write": (-1, 1)},
}
"""Fields that a lowering computes, and what a mistake would add to them."""


def mutants(code):
    """(what, changed code): every field of CHANGES off by one, every activation by another, per layer."""
    seen = set()
    for index, instruction in enumerate(decode(code)):
        mode = instruction.fields.get("exec_mode")
        values = {
            field: [instruction[field] + by for by in steps]
            for field, steps in CHANGES.get(instruction.name, {}).items()
        }
        if instruction.name in ("CONVINIT", "ELEW") or mode == 0:
            known = (0, 1) if instruction.name == "ELEW" else (0, 1, 4)
            values["act_type"] = [act for act in known if act != instruction["act_type"]]
        if mode in (2, 3):
            values.pop("shift_bias")
        if mode != 2:
            values.pop("multi_factor", None)
        for field, changed in values.items():
            for value in changed:
                what = (instruction.name, field, instruction[field], value)
                if value < 0 or what in seen:
                    continue
                seen.add(what)
                instructions = decode(code)
                instructions[index].fields[field] = value
                yield what, encode(instructions)


@pytest.mark.parametrize("fix_point", [4, 6])
def test_every_wrong_number_in_the_code_is_found(fix_point):
    network = mobile(fix_point)
    reference, program, compiled = prepared(network)
    assert survives(network, reference, program, compiled)
    tried, passed = 0, []
    for what, code in mutants(program.code):
        tried += 1
        if survives(network, reference, dataclasses.replace(program, code=code), compiled):
            passed.append(what)
    assert passed == [] and tried > 30


def test_wrong_lowerings_are_found(monkeypatch):
    """Rules of the compiler (and one of the engines) broken on purpose."""
    defects = [
        (6, lowering, "RELU6_FIX_POINT", 99),  # act_type 4, which clamps at 96, where 6.0 is out of reach
        (4, lowering, "RELU6_FIX_POINT", 3),  # no clamp where 96 is 6.0
        (4, lowering, "average_pool_factor", lambda height, width: (1, 3)),
        (4, engines, "RELU6_LIMIT", 95),
        (4, engines, "CODED_RIGHT", 9),
        (4, writer, "right_shift_code", lambda shift, coded_right: coded_right),
    ]
    for fix_point, module, name, value in defects:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            with pytest.raises(RuntimeError, match=r"layer '\w+': machine code and emulator differ on \d+"):
                compile_native(mobile(fix_point), TARGET)


def test_a_wrong_pad_byte_is_found(monkeypatch):
    """Padding of max pooling that counts as 0 instead of -128."""
    gather = engines._gather

    def zeros(memory, window, padding):
        return gather(memory, window, 0)

    monkeypatch.setattr(engines, "_gather", zeros)
    with pytest.raises(RuntimeError, match="layer 'max_pool4': machine code and emulator differ"):
        compile_native(mobile(4), TARGET)


def test_maps_that_are_tried_a_few_at_a_time_are_the_same(monkeypatch):
    b = Builder((6, 6, 20), 6)
    plain = {"kernel": (1, 1), "stride": (1, 1), "dilation": (1, 1), "pad": (0, 0, 0, 0)}
    name = b.layer("conv", ["input"], (6, 6, 1), 5, (1, 1, 1, 20), **plain, activation="NONE")
    quantized = b.quantized("half", b.dense(b.flatten(name), 3))
    layer = quantized.network[name]
    found = []
    for together in (1, 5 * 720, 1 << 30):
        monkeypatch.setattr(probes, "AT_ONCE", together)
        random = np.random.default_rng(5)
        found.append(probes._with_half(quantized, layer, (6, 6, 20), random))
        found.append(random.integers(1 << 40))
    assert found[1] == found[3] == found[5]
    np.testing.assert_array_equal(found[0], found[4])
    np.testing.assert_array_equal(found[2], found[4])
    real = branches.unrounded(quantized, layer, [found[4][None]])
    assert branches.halves(quantized, layer, real).any()
