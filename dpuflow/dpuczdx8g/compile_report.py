"""One compilation from check to report: what `compile.json` says and which graphs there are."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dpuflow.compiler.quantized_graph import quantized_graph
from dpuflow.compiler.reference import lower
from dpuflow.compiler.target_check import Finding, check, enforce
from dpuflow.device.targets import Target
from dpuflow.dpuczdx8g.cost_model import estimate
from dpuflow.network import QuantizedNetwork
from dpuflow.xir import Graph

NO_INSTRUCTIONS = (
    "A DPU-level graph without machine code: the emulator executes it, a board does not. "
    "For a board give the target `compiler: native` (dpuflow's own, machine code in seconds), "
    "or hand the quantized graph beside it to the vendor's vai_c_xir."
)


@dataclass(frozen=True)
class Compiled:
    """Result of a compilation: the DPU-level graph, the network that it was made of, the report for JSON."""

    graph: Graph
    quantized: QuantizedNetwork
    report: dict[str, Any]

    @cached_property
    def quantized_graph(self) -> Graph:
        """The uncompiled graph. Made when asked for: its weights are floats, of VGG16 half a gigabyte."""
        return quantized_graph(self.quantized)


def compile_reference(
    quantized: QuantizedNetwork,
    target: Target,
    on_cpu: str = "error",
    limits: Callable[[QuantizedNetwork, Target], Sequence[Finding]] = check,
    apart: dict[str, np.ndarray] | None = None,
) -> Compiled:
    """Check a QuantizedNetwork against a Target, lower it and estimate its cost.

    on_cpu : what to do about layers that leave the DPU: "error", "warn" or "allow".
    limits : gives the findings of a network for a target: the DPU's, or those of a compiler.
    apart : gets the weights, as in `compiler.reference.lower`.
    Raises UserError that lists those layers when on_cpu is "error".
    """
    findings = limits(quantized, target)
    enforce(findings, on_cpu, target)
    report = {
        "compiler": "reference",
        "machine_code": False,
        "note": NO_INSTRUCTIONS,
        "target": target.name,
        "dpu": target.dpu,
        "release": target.release,
        "fingerprint": f"{target.fingerprint:#x}",
        "board": asdict(target.board) if target.board else None,
        "findings": [asdict(finding) for finding in findings],
        "estimate": estimate(quantized, target),
    }
    graph = lower(quantized, target, {finding.layer for finding in findings}, apart)
    return Compiled(graph, quantized, report)
