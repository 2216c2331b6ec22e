"""Instruction formats of the DPUCZDX8G, ISA1, as data (docs/reference/instruction-set.md).

An instruction is one to six little-endian 32-bit words. Word 0 starts with opcode (bits
31:28), dpdon (27:24) and dpdby (23:20) in every format; the tables below list the rest as
``word high:low name``, with ``-1`` behind a field that stores its value less one.
"""

from dataclasses import dataclass, field
from functools import cached_property

ENGINES = ("LOAD", "SAVE", "CONV", "MISC")
"""The four engines; their index is their bit in the dpdon and dpdby masks."""

WORD_BYTES = 4


@dataclass(frozen=True)
class Field:
    """One bit field: `value = stored + bias`, with bias 1 for fields stored less one."""

    name: str
    word: int
    low: int
    width: int
    bias: int

    @property
    def minimum(self) -> int:
        """Least value."""
        return self.bias

    @property
    def maximum(self) -> int:
        """Greatest value."""
        return (1 << self.width) - 1 + self.bias

    @property
    def mask(self) -> int:
        """The field's bits within its word."""
        return ((1 << self.width) - 1) << self.low


@dataclass(frozen=True)
class Format:
    """The layout of one opcode: its engine, its number of words, its fields in table order."""

    name: str
    opcode: int
    words: int
    engine: str
    fields: tuple[Field, ...] = field(repr=False)

    @cached_property
    def by_name(self) -> dict[str, Field]:
        """name -> Field."""
        return {f.name: f for f in self.fields}

    @cached_property
    def defined_bits(self) -> tuple[int, ...]:
        """Per word, the bits that belong to some field (the others are reserved)."""
        bits = [0] * self.words
        bits[0] = 0xFFF00000
        for f in self.fields:
            bits[f.word] |= f.mask
        return tuple(bits)


def _format(name, opcode, words, engine, table):
    fields = []
    for line in table.strip().splitlines():
        word, bits, field_name, *less_one = line.split()
        high, _, low = bits.partition(":")
        width = int(high) - int(low or high) + 1
        fields.append(Field(field_name, int(word), int(low or high), width, 1 if less_one else 0))
    return Format(name, opcode, words, engine, tuple(fields))


_LOAD = """
    0 11:0 bank_addr
    0 19:14 bank_id
    1 9:0 jump_write -1
    1 25:10 jump_read -1
    2 9:0 length -1
    2 23:10 channel -1
    2 31:27 pad_idx -1
    3 2:0 reg_id
    3 15:8 const_value
    3 19:16 broadcast
    3 21:20 mode_avg
    3 26:22 pad_end
    3 31:27 pad_start
    4 28:0 ddr_addr
"""
_SAVE = """
    0 11:0 bank_addr
    0 19:14 bank_id
    1 9:0 jump_read -1
    1 25:10 jump_write -1
    1 28:27 argmax
    1 30:29 hp_id
    2 9:0 length -1
    2 21:10 channel -1
    3 2:0 reg_id
    3 15:8 const_value
    3 16 const_en
    4 28:0 ddr_addr
"""
_CONVINIT = """
    0 9:0 jump_read -1
    0 15:10 shift_cut
    0 19:16 act_type
    1 9:0 jump_read_endl -1
    1 15:10 shift_bias
    1 31:28 stride_out -1
    2 9:0 jump_write -1
    2 12:10 stride_offset_in
    2 15:13 valid_pixel_parallel -1
    2 27:24 kernel_h -1
    2 31:28 stride_h -1
    3 9:0 jump_write_endl -1
    3 12:10 stride_offset_out
    3 27:24 kernel_w -1
    3 31:28 stride_w -1
"""
_CONV = """
    0 11:0 bank_addr_in
    0 15:12 pad_top
    0 19:16 pad_left
    1 11:0 bank_addr_out
    1 15:12 pad_bottom
    1 19:16 pad_right
    1 31:24 channel_group -1
    2 11:0 bank_addr_weights
    2 17:12 bank_id_in
    2 31:22 length -1
    3 11:0 bank_addr_bias
    3 17:12 bank_id_out
    3 29:18 bank_addr_in_1
    4 11:0 bank_addr_in_2
    4 23:12 bank_addr_in_3
    4 28:24 channel_offset
"""
_ALUINIT = """
    0 7:0 kernel_w -1
    0 15:8 kernel_h -1
    0 19:16 exec_mode
    1 7:0 stride_offset_out
    1 15:8 stride_offset_in
    1 23:16 stride_w -1
    1 31:24 stride_h -1
    2 10:0 length -1
    2 15:11 channel_offset
    2 23:16 channel_group -1
    2 31:24 stride_out -1
    3 5:0 shift_prelu_n
    3 11:6 shift_cut
    3 17:12 shift_bias
    3 21:18 act_type
    3 27:22 shift_prelu_p
    4 12:0 jump_read_endl -1
    4 22:13 jump_read -1
    4 30:23 multi_factor
    5 12:0 jump_write_endl -1
    5 22:13 jump_write -1
    5 31:23 jump_read_weights
"""
_ALU = """
    0 13:0 bank_addr_out
    0 19:14 bank_id_out
    1 13:0 bank_addr_in
    1 19:14 bank_id_in
    1 22:20 valid_pixel_parallel -1
    1 30:23 pad_bottom
    2 13:0 bank_addr_in_1
    2 21:14 pad_right
    2 25:22 pad_left
    2 29:26 pad_top
    3 13:0 bank_addr_in_2
    3 27:14 bank_addr_weights
    3 31:28 kernel_d -1
    4 13:0 bank_addr_in_3
    4 27:14 bank_addr_bias
"""
_ELEWINIT = """
    0 13 share_pp
    0 19:14 bank_id_in
    1 13:0 bank_addr_in
    1 26:14 jump_read_endl -1
    1 28:27 id
    1 31:29 jump_bank -1
    2 11:0 jump_read
    2 15:12 shift_read
"""
_ELEW = """
    0 10:0 length -1
    0 11 act_type
    0 13:12 elew_type
    0 19:14 bank_id_out
    1 13:0 bank_addr_out
    1 26:14 jump_write_endl -1
    1 28:27 num -1
    1 31:29 valid_pixel_parallel -1
    2 11:0 jump_write -1
    2 16:12 shift_write
    2 24:17 channel_group -1
"""
_POOLINIT = """
    0 9:0 jump_read -1
    0 12:10 kernel_h -1
    0 15:13 kernel_w -1
    0 19:16 shift_cut
    1 1:0 pool_type
    1 4:2 stride_h -1
    1 7:5 stride_w -1
    1 10:8 stride_offset_in
    1 13:11 valid_pixel_parallel -1
    1 16:14 stride_offset_out
    1 20:17 stride_out -1
    1 30:21 jump_write -1
"""
_POOL = """
    0 11:0 bank_addr_in
    0 19:12 channel_group -1
    1 5:0 bank_id_in
    1 8:6 pad_bottom
    1 11:9 pad_right
    1 14:12 pad_top
    1 17:15 pad_left
    1 29:18 jump_write_endl -1
    2 5:0 bank_id_out
    2 15:6 length -1
    2 27:16 jump_read_endl -1
    3 11:0 bank_addr_out
    3 23:12 bank_addr_in_1
    3 31:24 downsample_kernel_w -1
    4 11:0 bank_addr_in_2
    4 23:12 bank_addr_in_3
    4 31:24 downsample_kernel_h -1
"""
_DWINIT = """
    0 9:0 jump_read_endl -1
    0 19:10 jump_read -1
    1 9:0 jump_write_endl -1
    1 13:10 kernel_h -1
    1 17:14 kernel_w -1
    1 21:18 stride_h -1
    1 25:22 stride_w -1
    1 28:26 valid_pixel_parallel -1
    1 31:29 stride_offset_in
    2 5:0 shift_cut
    2 11:6 shift_bias
    2 14:12 stride_offset_out
    2 18:15 stride_out -1
    2 28:19 jump_write -1
"""
_DPTWISE = """
    0 11:0 bank_addr_in
    0 19:12 channel_group -1
    1 11:0 bank_addr_out
    1 19:16 pad_bottom
    1 23:20 pad_top
    1 27:24 pad_right
    1 31:28 pad_left
    2 11:0 bank_addr_weights
    2 17:12 bank_id_in
    2 27:18 length -1
    2 31:28 act_type
    3 11:0 bank_addr_bias
    3 17:12 bank_id_out
    3 29:18 bank_addr_in_1
    4 11:0 bank_addr_in_2
    4 23:12 bank_addr_in_3
    4 28:24 channel_offset
"""

FORMATS = {
    f.name: f
    for f in (
        _format("LOAD", 0x0, 5, "LOAD", _LOAD),
        _format("ALUINIT", 0x1, 6, "MISC", _ALUINIT),
        _format("ALU", 0x2, 5, "MISC", _ALU),
        _format("SAVE", 0x4, 5, "SAVE", _SAVE),
        _format("POOLINIT", 0x6, 2, "MISC", _POOLINIT),
        _format("END", 0x7, 1, "SAVE", ""),
        _format("CONV", 0x8, 5, "CONV", _CONV),
        _format("CONVINIT", 0x9, 4, "CONV", _CONVINIT),
        _format("DPTWISE", 0xA, 5, "MISC", _DPTWISE),
        _format("DWINIT", 0xB, 3, "MISC", _DWINIT),
        _format("POOL", 0xC, 5, "MISC", _POOL),
        _format("ELEWINIT", 0xD, 3, "MISC", _ELEWINIT),
        _format("ELEW", 0xE, 3, "MISC", _ELEW),
    )
}
"""name -> Format. POOLINIT, POOL, DWINIT and DPTWISE have a layout but no engine on ISA1."""

BY_OPCODE = {f.opcode: f for f in FORMATS.values()}
