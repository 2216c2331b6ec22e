"""Instruction formats, encoding and assembler text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpuflow.base.errors import UserError
from dpuflow.dpuczdx8g.isa.assembly import (
    format_instruction,
    format_program,
    parse_instruction,
    parse_listing,
)
from dpuflow.dpuczdx8g.isa.code import Instruction, decode, encode, encode_instruction, make
from dpuflow.dpuczdx8g.isa.formats import BY_OPCODE, FORMATS


@st.composite
def instructions(draw):
    """Any instruction with any field values that fit."""
    layout = FORMATS[draw(st.sampled_from(sorted(FORMATS)))]
    fields = {f.name: draw(st.integers(f.minimum, f.maximum)) for f in layout.fields}
    masks = st.integers(0, 15)
    return Instruction(layout.name, draw(masks), draw(masks), fields)


def test_fields_do_not_overlap_and_stay_within_the_words():
    for layout in FORMATS.values():
        used = [0] * layout.words
        used[0] = 0xFFF00000
        for f in layout.fields:
            assert f.low + f.width <= 32
            assert used[f.word] & f.mask == 0, (layout.name, f.name)
            used[f.word] |= f.mask


def test_opcodes_and_sizes_of_the_facts_page():
    assert {hex(code): f.words for code, f in BY_OPCODE.items()} == {
        "0x0": 5, "0x4": 5, "0x9": 4, "0x8": 5, "0x7": 1, "0x1": 6, "0x2": 5,
        "0xd": 3, "0xe": 3, "0x6": 2, "0xc": 5, "0xb": 3, "0xa": 5,
    }  # fmt: skip


def test_known_bytes():
    load = make("LOAD", 1, 1, bank_id=33, jump_write=1, jump_read=32, length=1, channel=32)
    assert encode_instruction(load).hex() == "00401801007c0000007c00000000000000000000"
    assert encode_instruction(make("END", 2, 2)).hex() == "00002072"


@settings(max_examples=200)
@given(st.lists(instructions(), max_size=4))
def test_any_fields_survive_code_and_text(program):
    code = encode(program)
    assert decode(code) == program
    ((_, again),) = parse_listing("\n".join(format_program(program))) or [(None, [])]
    assert again == program
    assert encode(again) == code


@settings(max_examples=200)
@given(st.sampled_from(sorted(BY_OPCODE)), st.binary(min_size=24, max_size=24))
def test_any_bits_survive_code_and_text(opcode, noise):
    size = BY_OPCODE[opcode].words * 4
    code = bytearray(noise[:size])
    code[3] = code[3] & 0x0F | opcode << 4
    (instruction,) = decode(bytes(code))
    assert encode_instruction(instruction) == code
    assert encode_instruction(parse_instruction(format_instruction(instruction))) == code


@settings(max_examples=200)
@given(st.binary(max_size=60))
def test_arbitrary_bytes_decode_or_end_in_a_user_error(data):
    try:
        assert encode(decode(data)) == data
    except UserError as error:
        assert "offset" in str(error)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("000000f0", "unknown opcode 0xF at offset 0"),
        ("00002072" + "00002072" + "00000030", "unknown opcode 0x3 at offset 8"),
        ("00002072" + "00000000" * 2, "LOAD at offset 4 needs 20 bytes, only 8 are left"),
        ("00002072" + "0000", "2 stray bytes at offset 4"),
    ],
)
def test_malformed_code_names_the_offset(data, message):
    with pytest.raises(UserError, match="blob: .*" + message.replace("(", r"\(")):
        decode(bytes.fromhex(data), "blob")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("FOO 0001/0001", "unknown instruction 'FOO'"),
        ("LOAD 0001", "expected 'NAME dpdon/dpdby"),
        ("LOAD 0001/0001 bank=3", "LOAD has no field 'bank'"),
        ("LOAD 0001/0001 bank_id=64", r"LOAD.bank_id = 64 is outside 0\.\.63"),
        ("LOAD 0001/0001 length=0", r"LOAD.length = 0 is outside 1\.\.1024"),
        ("LOAD 0001/0001 bank_id=x", "'bank_id=x' is not field=NUMBER"),
        ("LOAD 0001/0001 reserved_0=0x1", "touches bits that belong to a field"),
        (".subgraph", "needs a name"),
    ],
)
def test_bad_assembler_text_names_the_line(line, message):
    with pytest.raises(UserError, match="f.s:2: .*" + message):
        parse_listing("# comment\n" + line, "f.s")


def test_subgraph_names_with_spaces_and_hashes():
    programs = parse_listing(".subgraph 'a #1 (x)'  # note\nEND 0010/0010\n.subgraph b\n")
    assert [(name, len(code)) for name, code in programs] == [("a #1 (x)", 1), ("b", 0)]
