"""Other people's vendor-compiled files: every program passes the checks and runs bit-equal.

Reading machine code needs no table of operators, so ops that dpuflow does not know are no
hindrance here. Then what the checks must still find: the same programs, broken on purpose.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.device.targets import describe_fingerprint
from dpuflow.dpuczdx8g.isa import shell as cli
from dpuflow.dpuczdx8g.isa.assembly import parse_listing
from dpuflow.dpuczdx8g.isa.code import decode, encode
from dpuflow.dpuczdx8g.isa.left_in_memory import left_in_memory, not_left_in_memory
from dpuflow.dpuczdx8g.isa.program import feature_maps, read_programs
from dpuflow.dpuczdx8g.isa.simulator import Simulator
from dpuflow.dpuczdx8g.isa.steps import MachineCodeError
from dpuflow.emulator import Emulator
from dpuflow.xir import Graph

WILD = Path(__file__).resolve().parents[3] / "shared" / "golden" / "wild"
FILES = sorted(path.stem for path in WILD.glob("*.xmodel")) or ["any"]
SIZES = {"B512", "B800", "B1024", "B1152", "B1600", "B2304", "B3136", "B4096"}


def load(shared, name):
    path = shared(f"golden/wild/{name}.xmodel")
    graph = Graph.load(path)
    kinds = {subgraph.attrs["dpu_fingerprint"] >> 48 for subgraph in graph.subgraphs("DPU")}
    return path, graph, kinds


@pytest.mark.parametrize("name", FILES)
def test_every_program_is_accepted_and_bit_equal(shared, name):
    path, graph, kinds = load(shared, name)
    if kinds != {0x0101}:
        with pytest.raises(UserError, match=r"no DPU subgraph|instruction set ISA[03] .* no other"):
            read_programs(graph, path.name)
        return
    vectors = np.load(path.with_suffix(".npz"))
    meta = json.loads(str(vectors["meta"]))["subgraphs"]
    programs = read_programs(graph, path.name)
    assert len(programs) == len(meta)
    for number, program in enumerate(programs):
        simulator = Simulator(program)
        assert simulator.machine.name in SIZES
        described = describe_fingerprint(program.fingerprint)
        assert described.startswith(f"DPUCZDX8G_ISA1_{simulator.machine.name}, release")
        names = [key for key in vectors.files if key.startswith(f"sub{number}_ddr_")]
        maps = feature_maps(graph, program)
        inputs = [
            vectors[f"sub{number}_input_{meta[number]['inputs'].index(port.op)}"] for port in program.inputs
        ]
        results = simulator.run(inputs, seed=7, maps=[maps[key.partition("_ddr_")[2]] for key in names])
        expected = [
            vectors[f"sub{number}_output_{meta[number]['outputs'].index(port.op)}"]
            for port in program.outputs
        ] + [vectors[key] for key in names]
        assert len(results) == len(expected)
        for ours, theirs in zip(results, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("name", "left", "named"),
    [
        (
            "mnistdense_28_tf2_b512_2.5",
            2,
            3,
        ),  # a layer that stays on the chip has a place
        ("efficientnetv2_48x28_96_k5_hswish_pt_b2304_3.5", 3, 7),  # three maps share one place
        ("lenet_28_tf2_b4096_3.5", 2, 6),
    ],
)
def test_what_is_left_in_memory_is_what_its_layers_computed(shared, name, left, named):
    path, graph, _ = load(shared, name)
    vectors, (program,) = np.load(path.with_suffix(".npz")), read_programs(graph)
    image = vectors["sub0_input_0"][:1]
    ports = left_in_memory(graph, program)
    assert len(ports) == left and len(feature_maps(graph, program)) == named
    assert not_left_in_memory(graph) == set(feature_maps(graph, program)) - set(ports)
    maps = Emulator(graph).run_subgraph(program.name, {program.inputs[0].op: image}, dump=True)
    arrays = Simulator(program).run([image], maps=list(ports.values()))[len(program.outputs) :]
    for op, array in zip(ports, arrays, strict=True):
        np.testing.assert_array_equal(array.ravel(), maps[op].ravel(), err_msg=op)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("lenet_32_pt_vdx8g_3.5", "DPUCVDX8G, instruction set ISA3"),
        ("mlp_63_pt_isa0_b4096_1.4", "DPUCZDX8G, instruction set ISA0"),
        ("signmnist_28_tf2_isa0_b4096_1.4", "DPUCZDX8G, instruction set ISA0"),
    ],
)
@pytest.mark.parametrize("command", ["disasm", "check"])
def test_other_instruction_sets_are_named(shared, capsys, name, kind, command):
    assert cli.main([command, str(shared(f"golden/wild/{name}.xmodel"))]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and kind in printed.err and "no other" in printed.err


@pytest.mark.parametrize("name", ["mnistdense_28_tf2_b512_2.5", "zerodce_512_pt_b4096_3.0"])
def test_listing_assembles_to_the_same_bytes(shared, capsys, name):
    path, graph, _ = load(shared, name)
    assert cli.main(["disasm", str(path)]) == 0
    listed = parse_listing(capsys.readouterr().out)
    assert [encode(code) for _, code in listed] == [program.code for program in read_programs(graph)]


def first(instructions, name, **fields):
    """Index of the first instruction with these field values."""
    return next(
        index
        for index, op in enumerate(instructions)
        if op.name == name and all(op[key] == value for key, value in fields.items())
    )


def change(where, **fields):
    """Sets fields of the instruction that `where` = (name, fields to find it by) describes."""

    def apply(code):
        code[first(code, where[0], **where[1])].fields.update(fields)

    return apply


def move_elementwise_output(code):
    """The first ELEW that works in place writes one entry further on."""
    operands = []
    for op in code:
        if op.name == "ELEWINIT":
            operands = operands[-1:] + [(op["bank_id_in"], op["bank_addr_in"])]
        elif op.name == "ELEW" and (op["bank_id_out"], op["bank_addr_out"]) in operands:
            op.fields["bank_addr_out"] += 1
            return
    raise AssertionError("no ELEW works in place")


def drop_weights_from_data(code):
    """The LOAD of computed weights becomes one of zeros into another bank."""
    code[first(code, "LOAD", bank_id=28, reg_id=1)].fields.update(bank_id=29, bank_addr=1000)


AUGMENTED = "mnist_28_pt_b4096_2.5"
LENET = "lenet_28_tf2_b4096_3.5"
HSWISH = "efficientnetv2_96x14_96_k5_hswish_pt_b2304_3.5"
SE = "efficientnetv2_32x56_48_k3_relu_se_pt_b2304_3.5"


@pytest.mark.parametrize(
    ("name", "broken", "message"),
    [
        # the row's LOAD starts before the input, and only masked bytes may lie there
        (AUGMENTED, change(("LOAD", {"reg_id": 2}), pad_start=0), "bytes of REG_2 that hold no data"),
        (AUGMENTED, change(("LOAD", {"reg_id": 2, "ddr_addr": 787}), pad_end=13), "are outside REG_2"),
        (LENET, change(("LOAD", {"reg_id": 2}), ddr_addr=70), "bytes of REG_2 that hold no data"),
        # six of 16 channels hold data; the pool passes that on, and nobody may use the others
        (LENET, change(("CONV", {"channel_offset": 10}), channel_offset=9), "reads bank entries that hold"),
        (LENET, change(("SAVE", {"channel": 10}), channel=11), "saves bank entries that hold"),
        (SE, drop_weights_from_data, "bank entries that hold no data"),
        (HSWISH, move_elementwise_output, "bank hazard: overwrites entries of its own input"),
    ],
)
def test_broken_code_is_still_found(shared, name, broken, message):
    (program,) = read_programs(load(shared, name)[1])
    code = decode(program.code)
    broken(code)
    with pytest.raises(MachineCodeError, match=message):
        Simulator(dataclasses.replace(program, code=encode(code)))
