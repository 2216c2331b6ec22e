"""One compilation with machine code, verified before anybody gets to see it."""

from collections.abc import Callable, Mapping

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.compiler.quantized_graph import quantized_graph
from dpuflow.device.dpuczdx8g import is_exact_add
from dpuflow.device.targets import Target
from dpuflow.dpuczdx8g.compile_report import Compiled, compile_reference
from dpuflow.dpuczdx8g.cost_model import handed_over
from dpuflow.dpuczdx8g.energy import energy
from dpuflow.dpuczdx8g.isa.attribution import layers_of
from dpuflow.dpuczdx8g.isa.breakdown import breakdown
from dpuflow.dpuczdx8g.isa.cycles import schedule, summary
from dpuflow.dpuczdx8g.isa.machine import machine_for
from dpuflow.dpuczdx8g.isa.runner import IsaRunner
from dpuflow.dpuczdx8g.native import limits
from dpuflow.dpuczdx8g.native.compile import STATUS, compile_graph
from dpuflow.dpuczdx8g.native.verification import DisagreementError, verify
from dpuflow.dpuczdx8g.timing import TIMING, figure, figures
from dpuflow.emulator import Emulator
from dpuflow.network import QuantizedNetwork
from dpuflow.network.dilation import without_dilation, without_idle_taps
from dpuflow.xir import Graph


def compile_native(
    quantized: QuantizedNetwork,
    target: Target,
    on_cpu: str = "error",
    calibration: np.ndarray | Mapping[str, np.ndarray] | None = None,
    take_uncompiled: Callable[[Graph], None] | None = None,
) -> Compiled:
    """Check, lower and compile a QuantizedNetwork to machine code for a DPUCZDX8G Target.

    The code is checked (addresses, banks, dependencies) and run on the instruction
    simulator; every feature map must equal the emulator's on the reference compiler's graph,
    bit for bit, or there is no result (`verification.verify`).

    calibration : uint8 images (N, H, W, C) to verify on, besides made ones; None: made ones only.
    take_uncompiled : gets the uncompiled graph before the machine code is made: both take much memory, this
        one for weights as floats. Else `Compiled.quantized_graph` gives it.

    Returns a compile_report.Compiled whose report has `machine_code` True and a list
    `programs` (instructions, register sizes, estimated cycles per DPU subgraph);
    `estimate.machine_code` sums those up as a latency.
    UserError names the layer that leaves the DPU (unless `on_cpu` allows it) or for which
    this compiler has no code.
    """
    machine_for(target.fingerprint, f"target {target.name}")
    quantized = without_idle_taps(quantized)
    left = {finding.layer for finding in limits.check(quantized, target)}  # the CPU has dilation
    quantized = without_dilation(quantized, but_for=left | limits.in_phases(quantized.network, target))
    weights: dict[str, np.ndarray] = {}
    compiled = compile_reference(quantized, target, on_cpu, limits.check, weights)
    graph = compiled.graph
    _require_exact_adds(graph)
    if take_uncompiled is not None:
        take_uncompiled(quantized_graph(quantized))
    reference = Emulator(graph.copy(), constants=weights)
    programs = compile_graph(graph, weights)
    runner = IsaRunner(graph)
    try:
        verification = verify(quantized, reference, runner.simulators, programs, calibration)
    except DisagreementError as error:
        raise RuntimeError(
            f"{quantized.network.name} for {target.name}: {error};"
            " a defect of the native compiler, use the `reference` compiler"
        ) from None
    estimate = dict(compiled.report["estimate"])
    cycles, estimate["machine_code"] = _time(runner, quantized, target, estimate)
    report = {
        **compiled.report,
        "estimate": estimate,
        "compiler": "native",
        "machine_code": True,
        "note": STATUS,
        "verification": verification,
        "programs": [{**program.summary(), "estimate": cycles[program.name]} for program in programs],
    }
    return Compiled(graph, quantized, report)


def _time(runner, quantized, target, estimate):
    """What the machine code takes: ({program: its cycles}, the part of the estimate)."""
    clock, cores = estimate["clock_mhz"], estimate["cores"]
    timing, cycles, layers, shared = TIMING.on(target.board), {}, [], 0.0
    for name, program in runner.programs.items():
        code = [step.instruction for step in runner.simulators[name].steps]
        made = schedule(code, timing)
        cycles[name] = summary(made)
        shared += schedule(code, timing, cores).cycles if cores > 1 else made.cycles
        layers += breakdown(code, made, *layers_of(runner.graph, program, code))
    total = sum(row["cycles"] for row in cycles.values())
    board = figures(total / clock, shared / clock, cores, *handed_over(quantized.network), jobs=len(cycles))
    used = energy(target, estimate["workload"], board, total / clock)
    return cycles, {
        "kind": "estimate",
        "cycles": total,
        "dpu_us": figure(total / clock),
        **board,
        **({"energy": used} if used else {}),
        "layers": [row.summary() for row in layers],
    }


def _require_exact_adds(graph):
    """The DPU's add keeps 2 guard bits, the reference semantics 7: refuse where that can show."""
    for op in graph.ops:
        if op.type == "eltwise-fix" and op.device == "DPU" and op.attr("type") == "ADD":
            fix_points = [graph.op(name).tensor.fix_point for name in op.inputs["input"]]
            if not is_exact_add(fix_points, op.tensor.fix_point):
                raise UserError(
                    f"layer {op.name!r} adds maps of fix_points {', '.join(map(str, fix_points))} to one of"
                    f" {op.tensor.fix_point}, so far apart that the DPU's instruction rounds otherwise than"
                    " the emulator. Quantize without `compat: vai_q` (the quantizer then bounds the"
                    " difference), or use the `reference` compiler"
                )
