"""Machine code -> steps: every instruction with its engine state and what it reads and writes.

The code of this instruction set is independent of the data, so all of this is worked out
once per program: `step_derivation` follows the instructions, `ordering` checks the dependency masks
on the steps, `engines` executes them.
"""

from dataclasses import dataclass, field

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.dpuczdx8g.isa.addressing import Window
from dpuflow.dpuczdx8g.isa.code import Instruction

EMPTY = np.zeros(0, np.int32)


class MachineCodeError(UserError):
    """Machine code that a DPU could not execute as meant; names instruction and offset."""


@dataclass
class Transfer:
    """DDR side of a LOAD or SAVE: `pixels` runs of `channel` bytes, `jump` bytes apart.

    `masked` [pixels, channel], if not None, marks bytes that padding replaces by zero: the
    DPU uses nothing of them, so they need neither hold data nor lie within the region.
    """

    region: str
    address: int
    jump: int
    pixels: int
    channel: int
    masked: np.ndarray | None = None

    @property
    def index(self) -> np.ndarray:
        """Byte indices into the region: [pixels, channel], those of masked bytes included."""
        return self.address + self.jump * np.arange(self.pixels)[:, None] + np.arange(self.channel)

    @property
    def touched(self) -> np.ndarray:
        """The byte indices that are really used, in order; runs that overlap repeat them."""
        index = self.index
        return index.ravel() if self.masked is None else index[~self.masked]


@dataclass
class Step:
    """One instruction as the engines execute it.

    Attributes
    ----------
    index, offset : position in the program, byte offset in the code.
    init : the INIT instruction in force, of a CONV or ALU; None for all others.
    operands : the ELEWINIT instructions of an ELEW.
    reads, writes : flat bank entries, each once.
    transfer : DDR side of LOAD (read) and SAVE (written), else None.
    window, inputs, outputs, weights, bias : index arrays that the engine needs.
    masked : of a LOAD, [pixels, channel] bytes that padding replaces by zero; None for none.
    per_image : a LOAD of weights or bias from a data region, or a CONV or ALU that uses such.
    same_input : a CONV reads just what the CONV before it read, and nothing wrote there since.
    """

    index: int
    offset: int
    instruction: Instruction
    init: Instruction | None = None
    operands: list[Instruction] = field(default_factory=list)
    reads: np.ndarray = field(default_factory=lambda: EMPTY)
    writes: np.ndarray = field(default_factory=lambda: EMPTY)
    transfer: Transfer | None = None
    window: Window | None = None
    inputs: list[np.ndarray] = field(default_factory=list)
    outputs: np.ndarray | None = None
    weights: np.ndarray | None = None
    bias: np.ndarray | None = None
    masked: np.ndarray | None = None
    per_image: bool = False
    same_input: bool = False

    @property
    def setting(self) -> Instruction:
        """`init`, for an instruction that cannot do without; MachineCodeError when it has none."""
        if self.init is None:
            raise self.error("no INIT instruction before it")
        return self.init

    @property
    def where(self) -> str:
        """ "instruction 33 (CONV at offset 640)" for messages."""
        return f"instruction {self.index} ({self.instruction.name} at offset {self.offset})"

    def error(self, message: str) -> MachineCodeError:
        """A MachineCodeError about this step."""
        return MachineCodeError(f"{self.where}: {message}")


@dataclass(frozen=True)
class Region:
    """A DDR region that a base register REG_n points to.

    Attributes
    ----------
    size : bytes.
    filled : (start, stop) byte ranges that hold data before the program starts.
    """

    size: int
    filled: tuple[tuple[int, int], ...] = ()
