"""Instructions <-> assembler text.

One instruction per line, values with the encoding's "-1" undone, masks as binary digits
in the order MISC CONV SAVE LOAD (bit 3 first)::

    .subgraph subgraph_conv2d fingerprint=0x101000056010407
    LOAD      0001/0001 bank_addr=0 bank_id=33 jump_write=1 ...  # 0 @0
    END       0010/0010  # 184 @3672

`.subgraph NAME` starts the code of the next DPU subgraph; ``#`` starts a comment (here
index and byte offset). A field left out takes its least value; `reserved_N=0x..` gives
bits of word N that belong to no field. Assembling a listing gives the same bytes.
"""

import re
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

from dpuflow.base.errors import UserError
from dpuflow.dpuczdx8g.isa.code import Instruction, check_ranges
from dpuflow.dpuczdx8g.isa.formats import FORMATS

_LINE = re.compile(r"(?P<name>[A-Z]+)\s+(?P<dpdon>[01]{4})/(?P<dpdby>[01]{4})(?P<rest>(?:\s+\S+)*)\s*")
_RESERVED = re.compile(r"reserved_(\d)")

Listed = tuple[str | None, list[Instruction]]
"""One program of a listing: name of its subgraph, or None, and its code."""


def format_instruction(instruction: Instruction) -> str:
    """One line of assembler text, every field of the format."""
    words = [f"{name}={value}" for name, value in instruction.fields.items()]
    words += [f"reserved_{word}=0x{bits:x}" for word, bits in sorted(instruction.reserved.items())]
    text = f"{instruction.name:<9} {instruction.dpdon:04b}/{instruction.dpdby:04b} {' '.join(words)}"
    return text.rstrip()


def format_program(instructions: Iterable[Instruction]) -> list[str]:
    """Lines for a whole program, with index and byte offset as comments."""
    lines, offset = [], 0
    for index, instruction in enumerate(instructions):
        lines.append(f"{format_instruction(instruction)}  # {index} @{offset}")
        offset += instruction.size
    return lines


def parse_instruction(line: str, where: str = "line") -> Instruction:
    """Assembler text of one instruction -> Instruction; UserError names `where` and the mistake."""
    match = _LINE.fullmatch(line)
    if not match:
        raise UserError(f"{where}: expected 'NAME dpdon/dpdby field=value ...', found {line!r}")
    layout = FORMATS.get(match["name"])
    if layout is None:
        raise UserError(f"{where}: unknown instruction {match['name']!r}, known: {', '.join(FORMATS)}")
    fields = {f.name: f.minimum for f in layout.fields}
    reserved = {}
    for word in match["rest"].split():
        key, _, text = word.partition("=")
        try:
            value = int(text, 0)
        except ValueError:
            raise UserError(f"{where}: {word!r} is not field=NUMBER") from None
        beyond = _RESERVED.fullmatch(key)
        if key in fields:
            fields[key] = value
        elif beyond and int(beyond[1]) < layout.words:
            if value < 0 or value & layout.defined_bits[int(beyond[1])] or value >> 32:
                raise UserError(f"{where}: {word} touches bits that belong to a field")
            reserved[int(beyond[1])] = value
        else:
            raise UserError(f"{where}: {layout.name} has no field {key!r}, it has {', '.join(fields)}")
    instruction = Instruction(layout.name, int(match["dpdon"], 2), int(match["dpdby"], 2), fields, reserved)
    try:
        check_ranges(instruction)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
    return instruction


def read_listing(path: Path | str) -> list[Listed]:
    """`parse_listing` of a UTF-8 file, "-" for standard input."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    return parse_listing(text, path)


def parse_listing(text: str, source: Path | str = "listing") -> list[Listed]:
    """Listing -> list of (subgraph name or None, list of Instruction), in order.

    Code before the first `.subgraph` line gets the name None.
    """
    programs: list[Listed] = []
    for number, raw in enumerate(text.splitlines(), 1):
        where = f"{source}:{number}"
        if raw.startswith(".subgraph"):
            try:
                words = shlex.split(raw, comments=True)
            except ValueError as error:
                raise UserError(f"{where}: {error} in {raw!r}") from None
            if len(words) < 2:
                raise UserError(f"{where}: .subgraph needs a name")
            programs.append((words[1], []))
            continue
        line = raw.partition("#")[0].strip()
        if not line:
            continue
        if not programs:
            programs.append((None, []))
        programs[-1][1].append(parse_instruction(line, where))
    return programs
