"""The tensors that a board's runtime dumped, by the ops of the xmodel."""

import math
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.emulator import Emulator
from dpuflow.xir import Op


def dump_name(name: str) -> str:
    """A tensor's or subgraph's name as the runtime writes it into names of dump files."""
    return re.sub(r"[^0-9A-Za-z_]", "_", name)


def dumped_tensors(
    folder: Path | str, emulator: Emulator, without: Collection[str] = ()
) -> Iterator[tuple[Op, np.ndarray | None]]:
    """(op, int8 array without the batch, or None where it was not dumped) of every op that a board has.

    folder : the `dump` folder that the runtime wrote. In order of execution.
    without : ops whose tensors are gone when the program ends, which is when the runtime dumps: what it
        wrote for them are other tensors' bytes.
    """
    on_board = {op.name for part in emulator.parts for op in (*part.inputs, *emulator.ops_of(part))}
    dumped = {path.name: path for path in sorted(Path(folder).rglob("0.*.bin"))}
    for op in emulator.graph.ops:
        if op.name not in on_board:
            continue
        path = dumped.get(f"0.{dump_name(op.tensor.name)}.bin")
        if path is None or op.name in without:
            yield op, None
            continue
        found, shape = np.frombuffer(path.read_bytes(), np.int8), op.tensor.shape[1:]
        if found.size != math.prod(shape):
            raise UserError(
                f"{path}: {found.size} bytes, the tensor of op {op.name!r} has {math.prod(shape)}"
            )
        yield op, found.reshape(shape)
