"""Runs a whole compiled xmodel: machine code on the instruction simulator, CPU ops in the emulator."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dpuflow.base.errors import UserError, about
from dpuflow.dpuczdx8g.isa.cycles import estimate_cycles
from dpuflow.dpuczdx8g.isa.program import read_programs
from dpuflow.dpuczdx8g.isa.simulator import Simulator
from dpuflow.emulator import Emulator
from dpuflow.xir import Graph


class IsaRunner:
    """Executes a compiled graph with machine code.

    The DPU subgraphs run as machine code, everything else (fix2float, softmax, layers
    that the compiler left to the CPU) as the emulator runs it.

    Parameters
    ----------
    graph : dpuflow.xir.Graph, or the path of a file.

    UserError when it has no machine code, or code that breaks a rule of the DPU.
    """

    def __init__(self, graph: Graph | Path | str, source: Path | str = "xmodel") -> None:
        self.emulator = Emulator(graph, subgraphs="CPU")
        self.graph = self.emulator.graph
        self.programs = {program.name: program for program in read_programs(self.graph, source)}
        with about(self.emulator.source):
            self.simulators = {name: Simulator(program) for name, program in self.programs.items()}

    def quantize_input(self, images: Any) -> Any:
        """uint8 images -> int8 input, of several inputs {name: images}, as `Emulator.quantize_input`."""
        return self.emulator.quantize_input(images)

    def summary(self) -> list[dict[str, Any]]:
        """Per DPU subgraph, for reports: size of the code and its estimated cycles.

        With a DDR as fast as a core's ports: a file does not say for which board it is.
        """
        return [
            {
                "name": name,
                "machine": simulator.machine.name,
                "code_bytes": len(simulator.program.code),
                "instructions": len(simulator.steps),
                "estimate": estimate_cycles([step.instruction for step in simulator.steps]),
            }
            for name, simulator in self.simulators.items()
        ]

    def run(
        self, batch: np.ndarray | Mapping[str, np.ndarray], interleave: int | None = None
    ) -> np.ndarray | dict[str, np.ndarray]:
        """int8 images [N, H, W, C], of several inputs {name: images} -> what `Emulator.run` gives: the
        graph's output [N, ...], of several {op's name: array}.

        interleave : as for `Simulator.run`.
        """
        values = self._run(batch, interleave)
        outputs = {op.name: values[op.name] for op in self.emulator.outputs}
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """int8 images [N, H, W, C] -> int8 output of the last DPU subgraph [N, ...]."""
        values = self._run(batch)
        return values[list(self.programs.values())[-1].outputs[-1].op]

    def _run(self, batch, interleave=None):
        values = dict(batch) if isinstance(batch, Mapping) else {self.emulator.input.name: batch}
        missing = [op.name for op in self.emulator.inputs if op.name not in values]
        if missing:
            raise UserError(
                f"{self.emulator.source} needs an input called {missing[0]!r}; got {sorted(values)}"
            )
        for part in self.emulator.parts:
            if part.device == "DPU":
                program, simulator = self.programs[part.name], self.simulators[part.name]
                outputs = simulator.run([values[port.op] for port in program.inputs], interleave=interleave)
                values.update({port.op: a for port, a in zip(program.outputs, outputs, strict=True)})
            elif part.device != "USER":
                given = {op.name: values[op.name] for op in part.inputs}
                values.update(self.emulator.run_subgraph(part.name, given))
        return values


def run_xmodel(graph: Graph, images: np.ndarray, source: Path | str = "xmodel") -> np.ndarray:
    """Run int8 images through the machine code of a compiled graph.

    Parameters
    ----------
    graph : xir.Graph whose DPU subgraphs hold machine code.
    images : int8 [images, height, width, channels], at the input's fix_point.
    source : names the graph in messages.

    Returns
    -------
    int8 [images, ...]: the output of the last DPU subgraph, the logits of a classifier.
    """
    return IsaRunner(graph, source).logits(images)
