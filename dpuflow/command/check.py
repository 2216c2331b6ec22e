"""`dpuflow check MODEL`: which layers run where and why, what it would cost, how fast it would be."""

from collections import Counter
from typing import Any

from dpuflow.base.errors import about
from dpuflow.command.models import Model
from dpuflow.compiler import target_check
from dpuflow.compiler.target_check import Finding
from dpuflow.compiler.workload import engine
from dpuflow.device.targets import Target, describe_fingerprint, size_of
from dpuflow.dpuczdx8g.cost_model import estimate
from dpuflow.dpuczdx8g.isa.cycles import estimate_cycles
from dpuflow.dpuczdx8g.isa.machine import FAMILY
from dpuflow.dpuczdx8g.isa.program import read_programs
from dpuflow.dpuczdx8g.isa.simulator import Simulator
from dpuflow.dpuczdx8g.native import limits
from dpuflow.dpuczdx8g.timing import TIMING
from dpuflow.emulator import support
from dpuflow.network import Network
from dpuflow.quantize.folding import fold
from dpuflow.xir.ends import outputs

SLOWEST = 5


def checked(model: Model, target: Target) -> dict[str, Any]:
    """What a model would be on a target, as a dict for JSON.

    Returns
    -------
    dict: model, kind, input, target, fits, layers (count per device), on_cpu (layer, op, reason, remedy, of
    the compilers native and reference), estimate (of the cost model), notes. Of a compiled
    xmodel: subgraphs and cycles in place of the layers' verdicts.
    """
    content: dict[str, Any] = {
        "model": model.path,
        "kind": model.key,
        "input": list(model.shape),
        "target": target.name,
        "dpu": target.dpu,
        "notes": list(model.notes),
    }
    if model.open:
        height, width, _ = model.shape
        content["notes"].append(
            f"the file leaves the size of images open: {height} x {width} taken (--size HxW says another)"
        )
    if model.network is None:
        return content | _compiled(model, target)
    folded = model.network
    if model.key != "quantized":
        with about(model.path):
            folded, _ = fold(model.network)
    return content | _network(folded, target)


def _network(network: Network, target: Target) -> dict[str, Any]:
    findings = {"reference": target_check.check(network, target), "native": limits.check(network, target)}
    leaving = {finding.layer for finding in findings["native"]}
    floats = [layer for layer in network.layers if not layer.operator.quantized]
    computing = [layer for layer in network.layers if layer.op != "input" and not layer.operator.renames]
    on_cpu = [layer.name for layer in computing if layer.name in leaving or layer in floats]
    cost = estimate(network, target)
    rows = sorted(cost["layers"], key=lambda row: -row["time_us"])
    return {
        "fits": not leaving,
        "layers": {"DPU": len(computing) - len(on_cpu), "CPU": len(on_cpu)},
        "operators": dict(sorted(Counter(layer.op for layer in computing).items())),
        "engines": dict(Counter(engine(network, layer) or "none" for layer in computing)),
        "at_the_end": [f"{layer.name} ({layer.op})" for layer in floats],
        "on_cpu": {name: [_told(finding) for finding in found] for name, found in findings.items()},
        "parameters": sum(
            array.size
            for layer in network.layers
            for array in (layer.weights, layer.bias)
            if array is not None
        ),
        "estimate": {key: cost[key] for key in FIGURES if key in cost},
        "slowest": [
            {"layer": row["name"], "time_us": row["time_us"], "bound": row.get("bound")}
            for row in rows[:SLOWEST]
        ],
        "outputs": {name: list(layer.shape) for name, layer in network.outputs.items()},
    }


FIGURES = ("latency_us", "frames_per_second", "workload", "weight_bytes", "activation_bytes", "ddr_bytes")


def _told(finding: Finding) -> dict[str, str]:
    return {
        "layer": finding.layer,
        "op": finding.op,
        "reason": f"{finding.limit} is {finding.value}, allowed {finding.allowed}; {finding.reason}",
        "remedy": finding.remedy,
    }


def _compiled(model: Model, target: Target) -> dict[str, Any]:
    graph, notes = model.graph, []
    assert graph is not None  # as models.read_model gives it
    parts = [{"name": s.name, "device": s.device, "ops": len(s.op_names)} for s in graph.subgraphs()]
    programs = []
    fits = True
    for subgraph in graph.subgraphs("DPU"):
        fingerprint = subgraph.attrs.get("dpu_fingerprint", 0)
        if fingerprint != target.fingerprint:
            made_for = describe_fingerprint(fingerprint) or hex(fingerprint)
            notes.append(f"compiled for {made_for}, not for {target.name}: no board of this target runs it")
            fits = False
            break
    with about(model.path):
        support.require_family(graph)
    foreign = {s.attrs.get("dpu_fingerprint", 0) for s in graph.subgraphs("DPU")}
    foreign = {fingerprint for fingerprint in foreign if size_of(FAMILY, fingerprint) is None}
    if not any(subgraph.attrs.get("mc_code") for subgraph in graph.subgraphs("DPU")):
        notes.append("holds no machine code: the emulator runs it, a board does not")
    elif foreign:
        made_for = ", ".join(describe_fingerprint(fingerprint) or hex(fingerprint) for fingerprint in foreign)
        notes.append(
            f"its machine code, for {made_for}, is not read, so there is no time here; the emulator runs "
            "the graph"
        )
    else:
        for program in read_programs(graph, model.path):
            code = [step.instruction for step in Simulator(program).steps]
            cycles = estimate_cycles(code, TIMING.on(target.board))["cycles"]
            programs.append({"name": program.name, "code_bytes": len(program.code), "cycles": cycles})
    answer: dict[str, Any] = {"fits": fits, "subgraphs": parts, "programs": programs, "notes": notes}
    answer["outputs"] = {op.name: list(op.tensor.shape[1:]) for op in outputs(graph)}
    clock = target.board.clock_mhz if target.board else None
    if programs and clock:
        answer["dpu_us"] = round(sum(program["cycles"] for program in programs) / clock, 1)
    return answer


def words(content: dict[str, Any]) -> str:
    """The same for people."""
    shape = " x ".join(map(str, content["input"]))
    lines = [
        f"{content['model']} ({content['kind']}), images {shape}, on {content['target']} ({content['dpu']})"
    ]
    outputs = ", ".join(f"{name} {shape}" for name, shape in content["outputs"].items())
    lines += ["", f"  outputs      {outputs}"]
    if "subgraphs" in content:
        lines += [f"  {s['device'] or 'none':12} {s['name']}: {s['ops']} ops" for s in content["subgraphs"]]
        for program in content["programs"]:
            lines.append(
                f"  machine code {program['name']}: {program['code_bytes']:,} bytes, "
                f"{program['cycles']:,} cycles (estimate)"
            )
        if "dpu_us" in content:
            lines.append(f"  time         {content['dpu_us'] / 1000:.3g} ms on the DPU (estimate)")
    else:
        lines += _network_words(content)
    for note in content["notes"]:
        lines.append(f"  note: {note}")
    return "\n".join(lines)


def _network_words(content):
    counts, cost = content["layers"], content["estimate"]
    kinds = ", ".join(f"{count} {kind}" for kind, count in content["operators"].items())
    lines = [
        f"  layers       {counts['DPU']} on the DPU, {counts['CPU']} on the CPU: {kinds}",
        f"  weights      {content['parameters']:,} ({cost['weight_bytes'] / 1e6:.3g} MB as INT8)",
        f"  work         {cost['workload'] / 1e9:.3g} GOP per image",
        f"  time         {cost['latency_us'] / 1000:.3g} ms per image (estimate)",
    ]
    slow = ", ".join(f"{row['layer']} {row['time_us'] / 1000:.2g} ms" for row in content["slowest"][:3])
    lines.append(f"  slowest      {slow}")
    if content["at_the_end"]:
        lines.append(f"  floats       {', '.join(content['at_the_end'])}: always computed on the CPU")
    native, reference = content["on_cpu"]["native"], content["on_cpu"]["reference"]
    if not native:
        return [*lines, "  verdict      every quantized layer runs on the DPU, with either compiler"]
    lines.append("  leave the DPU (targets.NAME.on_cpu: warn lets the CPU compute them):")
    beyond = {(entry["layer"], entry["reason"]) for entry in reference}
    for entry in native:
        which = "" if (entry["layer"], entry["reason"]) in beyond else " [compiler native only]"
        lines.append(f"    {entry['layer']} ({entry['op']}){which}: {entry['reason']}")
        lines.append(f"      what to do: {entry['remedy']}")
    return lines
