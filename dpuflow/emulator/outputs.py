"""The outputs of an xmodel in the emulator, by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.numerics import dequantize
from dpuflow.base.outputs import ONLY, Shapes
from dpuflow.emulator.attributes import fix_point
from dpuflow.emulator.emulator import Emulator
from dpuflow.xir import Graph, Op


def named_outputs(emulator: Emulator) -> dict[str, Op]:
    """Output's name (`base.outputs`) -> the op that gives it.

    As the graph names them, else as its ops are called; the only one is ONLY.
    """
    ends = emulator.outputs
    names = emulator.graph.attrs.get("output_names") or [op.name for op in ends]
    if len(names) != len(ends):
        raise UserError(f"{emulator.source}: {len(names)} names for its {len(ends)} outputs; it is damaged")
    if len(set(names)) < len(names):
        raise UserError(f"{emulator.source}: outputs of one name ({', '.join(names)}); it is damaged")
    return dict(zip(names, ends, strict=True)) if len(ends) > 1 else {ONLY: ends[0]}


def named_values(emulator: Emulator, values: Any) -> dict[str, np.ndarray]:
    """{output's name: float32 (N, ...)} of what `Emulator.run` gives."""
    ends = named_outputs(emulator)
    given = values if isinstance(values, dict) else {op.name: values for op in ends.values()}
    return {name: _real(given[op.name], op) for name, op in ends.items()}


def _real(values: np.ndarray, op: Op) -> np.ndarray:
    """An output in real numbers; integers at the end of a foreign file have a fix_point."""
    if values.dtype == np.int8:
        return dequantize(values, fix_point(op)).astype(np.float32, copy=False)
    return values.astype(np.float32, copy=False)


class EmulatorStage:
    """`base.outputs.Stage` of an xmodel in the emulator; closed by leaving its `with`.

    Parameters
    ----------
    xmodel : as for `Emulator`, with its input scaling. threads : worker threads.
    """

    def __init__(self, xmodel: Graph | Path | str, threads: int | None = None) -> None:
        self.emulator = Emulator(xmodel, threads=threads)
        self._run: Callable[[np.ndarray], Any] = self.emulator.run

    @property
    def shapes(self) -> Shapes:
        """Of the outputs."""
        return {name: tuple(op.tensor.shape[1:]) for name, op in named_outputs(self.emulator).items()}

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """{output's name: float32 (N, *shape)} of uint8 pictures."""
        return named_values(self.emulator, self._run(self.emulator.quantize_input(images)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.emulator.close()
