"""Machine code <-> instructions.

`mc_code` is the plain concatenation of instructions, without header or padding (
docs/reference/instruction-set.md).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from dpuflow.base.errors import UserError
from dpuflow.dpuczdx8g.isa.formats import BY_OPCODE, ENGINES, FORMATS, WORD_BYTES, Format


@dataclass
class Instruction:
    """One instruction with its decoded fields (the "-1" of the encoding undone).

    Attributes
    ----------
    name : key of FORMATS.
    dpdon, dpdby : masks of engines, bit i = ENGINES[i].
    fields : field name -> value, every field of the format.
    reserved : word index -> bits set outside all fields (empty in proper code).
    """

    name: str
    dpdon: int
    dpdby: int
    fields: dict[str, int]
    reserved: dict[int, int] = field(default_factory=dict)

    def __getitem__(self, name: str) -> int:
        return self.fields[name]

    @property
    def format(self) -> Format:
        """The Format of this instruction."""
        return FORMATS[self.name]

    @property
    def engine(self) -> int:
        """Index of its engine in ENGINES."""
        return ENGINES.index(self.format.engine)

    @property
    def size(self) -> int:
        """Bytes of its encoding."""
        return self.format.words * WORD_BYTES


def make(name: str, dpdon: int = 0, dpdby: int = 0, **values: int) -> Instruction:
    """An Instruction; fields not given take their least value, others must exist and fit.

    ValueError when a value does not fit its bits or a name is unknown.
    """
    fields = {f.name: f.minimum for f in FORMATS[name].fields}
    unknown = set(values) - set(fields)
    if unknown:
        raise ValueError(f"{name} has no field {sorted(unknown)[0]!r}")
    fields.update({key: int(value) for key, value in values.items()})
    instruction = Instruction(name, dpdon, dpdby, fields)
    check_ranges(instruction)
    return instruction


def check_ranges(instruction: Instruction) -> None:
    """ValueError when a field's value does not fit its bits."""
    for f in instruction.format.fields:
        value = instruction.fields[f.name]
        if not f.minimum <= value <= f.maximum:
            raise ValueError(f"{instruction.name}.{f.name} = {value} is outside {f.minimum}..{f.maximum}")
    for key in ("dpdon", "dpdby"):
        if not 0 <= getattr(instruction, key) <= 0xF:
            raise ValueError(f"{instruction.name}.{key} = {getattr(instruction, key)} is outside 0..15")


def encode_instruction(instruction: Instruction) -> bytes:
    """Instruction -> its bytes; ValueError when a value does not fit."""
    check_ranges(instruction)
    layout = instruction.format
    words = [0] * layout.words
    words[0] = layout.opcode << 28 | instruction.dpdon << 24 | instruction.dpdby << 20
    for f in layout.fields:
        words[f.word] |= (instruction.fields[f.name] - f.bias) << f.low
    for word, bits in instruction.reserved.items():
        words[word] |= bits
    return b"".join(word.to_bytes(WORD_BYTES, "little") for word in words)


def encode(instructions: Iterable[Instruction]) -> bytes:
    """Instructions -> machine code."""
    return b"".join(encode_instruction(i) for i in instructions)


def decode(code: bytes, source: Path | str = "machine code") -> list[Instruction]:
    """Machine code (bytes) -> list of Instruction.

    UserError with the byte offset when an opcode is unknown or the code ends inside an
    instruction. Whether it ends with END is the simulator's business.
    """
    code = bytes(code)
    instructions, offset = [], 0
    while offset < len(code):
        word = int.from_bytes(code[offset : offset + WORD_BYTES], "little")
        if len(code) - offset < WORD_BYTES:
            raise UserError(
                f"{source}: {len(code) - offset} stray bytes at offset {offset}; expected 32-bit words"
            )
        layout = BY_OPCODE.get(word >> 28)
        if layout is None:
            raise UserError(f"{source}: unknown opcode 0x{word >> 28:X} at offset {offset}")
        size = layout.words * WORD_BYTES
        if offset + size > len(code):
            raise UserError(
                f"{source}: {layout.name} at offset {offset} needs {size} bytes,"
                f" only {len(code) - offset} are left"
            )
        instructions.append(_decode_one(layout, code[offset : offset + size]))
        offset += size
    return instructions


def _decode_one(layout, data):
    words = [int.from_bytes(data[i : i + WORD_BYTES], "little") for i in range(0, len(data), WORD_BYTES)]
    values = {f.name: ((words[f.word] & f.mask) >> f.low) + f.bias for f in layout.fields}
    reserved = {
        index: word & ~defined
        for index, (word, defined) in enumerate(zip(words, layout.defined_bits, strict=True))
        if word & ~defined
    }
    return Instruction(layout.name, words[0] >> 24 & 0xF, words[0] >> 20 & 0xF, values, reserved)
