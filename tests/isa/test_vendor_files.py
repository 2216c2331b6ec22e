"""Vendor-compiled machine code: listed, assembled, checked, executed, broken on purpose."""

import dataclasses

import numpy as np
import pytest

from dpuflow.dpuczdx8g.isa import shell as cli
from dpuflow.dpuczdx8g.isa.assembly import parse_listing
from dpuflow.dpuczdx8g.isa.code import decode, encode
from dpuflow.dpuczdx8g.isa.ordering import interleaving
from dpuflow.dpuczdx8g.isa.program import read_programs
from dpuflow.dpuczdx8g.isa.simulator import Simulator
from dpuflow.dpuczdx8g.isa.steps import MachineCodeError
from dpuflow.xir import Graph

VERSIONS = ("2.5", "3.0")


@pytest.fixture(scope="module")
def vendor(shared):
    """Factory: compiler version -> (path, its two DpuPrograms)."""

    def load(version):
        path = shared(f"golden/vendor/zcu102_mnist_{version}.xmodel")
        return path, read_programs(Graph.load(path), str(path))

    return load


@pytest.fixture(scope="module")
def vectors(shared):
    return np.load(shared("golden/vendor/zcu102_mnist_vectors.npz"))


@pytest.fixture(scope="module")
def conv_program(vendor):
    return vendor("3.0")[1][0]


@pytest.mark.parametrize("version", VERSIONS)
def test_listing_assembles_to_the_same_bytes(vendor, version, capsys):
    path, programs = vendor(version)
    assert cli.main(["disasm", str(path)]) == 0
    listed = parse_listing(capsys.readouterr().out)
    assert [name for name, _ in listed] == [program.name for program in programs]
    for (_, instructions), program in zip(listed, programs, strict=True):
        assert encode(instructions) == program.code
    assert [len(instructions) for _, instructions in listed] == [185, 19]


def test_assembling_into_the_file_gives_the_same_file(vendor, tmp_path, capsys):
    path, _ = vendor("3.0")
    cli.main(["disasm", str(path)])
    (tmp_path / "listing.s").write_text(capsys.readouterr().out)
    output = tmp_path / "again.xmodel"
    assert cli.main(["asm", str(tmp_path / "listing.s"), str(output), "--into", str(path)]) == 0
    assert Graph.load(output).to_bytes() == Graph.load(path).to_bytes()


def test_check_command(vendor, capsys):
    path, _ = vendor("3.0")
    assert cli.main(["check", str(path)]) == 0
    assert "8 ALU" not in capsys.readouterr().out
    assert cli.main(["check", str(path) + "x"]) == 1
    assert "no such file" in capsys.readouterr().err


@pytest.mark.parametrize("version", VERSIONS)
def test_execution_is_bit_equal_to_the_vendors_simulator(vendor, vectors, version):
    for number, program in enumerate(vendor(version)[1]):
        simulator = Simulator(program)
        for seed, count in ((0, 24), (1, 2)):  # the noise that banks start with must not matter
            (output,) = simulator.run([vectors[f"dpu{number}_input"][:count]], seed=seed)
            np.testing.assert_array_equal(output, vectors[f"dpu{number}_output"][:count])


def test_any_order_the_masks_allow_gives_the_same(conv_program, vectors):
    simulator = Simulator(conv_program)
    images, expected = vectors["dpu0_input"][:4], vectors["dpu0_output"][:4]
    orders = set()
    for seed in range(20):
        (output,) = simulator.run([images], interleave=seed)
        np.testing.assert_array_equal(output, expected)
        orders.add(tuple(interleaving([step.instruction for step in simulator.steps], seed)))
    assert len(orders) == 20


def test_an_order_without_a_token_gives_something_else(conv_program, vectors):
    """The race that the checker reports is a real one: without 032 -> 033 CONV reads noise."""
    instructions = decode(conv_program.code)
    set_masks((32, 1, 1), (33, 0b0100, 0b0100))(instructions)
    simulator = Simulator(conv_program)
    for step, instruction in zip(simulator.steps, instructions, strict=True):
        step.instruction.dpdon, step.instruction.dpdby = instruction.dpdon, instruction.dpdby
    images, expected = vectors["dpu0_input"][:4], vectors["dpu0_output"][:4]
    assert any((simulator.run([images], interleave=seed)[0] != expected).any() for seed in range(10))


def mutated(program, change):
    """The program with `change(instructions)` applied."""
    instructions = decode(program.code)
    change(instructions)
    return dataclasses.replace(program, code=encode(instructions))


def set_field(index, **fields):
    def change(instructions):
        for name, value in fields.items():
            assert name in instructions[index].fields
            instructions[index].fields[name] = value

    return change


def set_masks(*masks):
    def change(instructions):
        for index, dpdon, dpdby in masks:
            instructions[index].dpdon, instructions[index].dpdby = dpdon, dpdby

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # 032 is the last weight LOAD before CONV 033: without its token CONV does not wait
        (set_masks((32, 1, 1), (33, 0b0100, 0b0100)), "instruction 33 .*missing dependency.* instruction 0 "),
        # 105 CONV -> 106 ALU
        (set_masks((105, 0b0101, 0b0100), (106, 0b1000, 0b1000)), "instruction 106 .*missing dependency"),
        # 181 ALU -> 182 SAVE
        (set_masks((181, 0b1100, 0b1000), (182, 0b0010, 0)), "instruction 182 .*missing dependency"),
        # the consumer waits for a token that nobody gives
        (set_masks((32, 1, 1)), "instruction 33 .*waits for LOAD.*deadlock"),
        # a token that nobody takes
        (set_masks((33, 0b0100, 0b0100)), "instruction .*waits for|tokens LOAD->CONV are left"),
        # the pool's input overwritten while it may still be read: 111 -> 129 is that token
        (set_masks((111, 0b1100, 0b1000), (129, 0b0101, 0b0100)), "instruction 129 .*missing dependency"),
        (set_field(3, bank_id=34), "instruction 3 .*bank 34 does not exist"),
        (set_field(3, ddr_addr=784 - 27), "bytes 757..784 are outside REG_2"),
        (set_field(3, reg_id=5), "REG_5 is not among the registers"),
        (set_field(182, ddr_addr=256 - 127), "bytes 129..256 are outside REG_3"),
        (set_field(182, reg_id=0), "writes to REG_0"),
        (set_field(182, bank_id=16), "bank 16 is none of the 16 image banks"),
        (set_field(33, bank_id_out=9), "instruction 33 .*overwrites entries of its own input"),
        (set_field(33, bank_addr_in=1), "instruction 33 .*hold no data"),
        (set_field(33, bank_addr_bias=3), "instruction 33 .*no output channel has both"),
        (set_field(106, bank_addr_in=300), "instruction 106 .*hold no data"),
        (set_field(1, act_type=2), "act_type 2 does not exist"),
        (set_field(1, shift_bias=21), "shift_bias 21 exceeds 20"),
        (set_field(106, valid_pixel_parallel=5), "5 rows exceed the ALU's 4"),
        (set_field(2, exec_mode=9), "exec_mode 9 is not supported"),
        (lambda code: code.pop(), "ends at offset 3672 without END"),
        (lambda code: code.insert(5, code[-1]), "instruction 5 .*code goes on after END"),
        (lambda code: code.pop(1), "instruction 32 .*no CONVINIT before it"),
        (lambda code: code.pop(183), "never writes all of output|deadlock"),
    ],
)  # fmt: skip
def test_broken_code_is_found(conv_program, change, message):
    with pytest.raises(MachineCodeError, match=message):
        Simulator(mutated(conv_program, change))


def test_every_dropped_token_pair_is_noticed(conv_program):
    """The checker misses none of the tokens between engines that the vendor's compiler set."""
    instructions = decode(conv_program.code)
    producers = [i for i, op in enumerate(instructions) if op.dpdby & ~(1 << op.engine)]
    unnoticed = []
    for index in producers:

        def drop(code, index=index):
            engine = code[index].engine
            for consumer in range(4):
                if consumer != engine and code[index].dpdby >> consumer & 1:
                    code[index].dpdby &= ~(1 << consumer)
                    taker = next(
                        op for op in code[index + 1 :] if op.engine == consumer and op.dpdon >> engine & 1
                    )  # fmt: skip
                    taker.dpdon &= ~(1 << engine)

        try:
            Simulator(mutated(conv_program, drop))
            unnoticed.append(index)
        except MachineCodeError:
            pass
    assert len(producers) > 10
    assert unnoticed == []
