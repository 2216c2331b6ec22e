"""The outputs of a compiled xmodel's machine code, by name, each compared with the emulator's."""

from pathlib import Path

import numpy as np

from dpuflow.base.outputs import Shapes
from dpuflow.dpuczdx8g.isa.runner import IsaRunner
from dpuflow.emulator.outputs import EmulatorStage, named_values


class IsaStage:
    """`base.outputs.Stage` of machine code on the instruction simulator.

    Parameters
    ----------
    xmodel : compiled, with machine code. threads : of the emulator beside it.

    Attributes
    ----------
    equal : pictures so far of which every output equals the emulator's; images : pictures so far.
    """

    def __init__(self, xmodel: Path | str, threads: int | None = None) -> None:
        self.runner = IsaRunner(xmodel, xmodel)
        self.emulated = EmulatorStage(xmodel, threads)
        self.images = self.equal = 0

    @property
    def shapes(self) -> Shapes:
        """Of the outputs."""
        return self.emulated.shapes

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """{output's name: float32 (N, *shape)} of uint8 pictures."""
        found = self.runner.run(self.runner.quantize_input(images))
        values = named_values(self.emulated.emulator, found)
        same = np.ones(len(images), bool)
        for name, expected in self.emulated(images).items():
            same &= (values[name] == expected).reshape(len(images), -1).all(axis=1)
        self.images, self.equal = self.images + len(images), self.equal + int(same.sum())
        return values
