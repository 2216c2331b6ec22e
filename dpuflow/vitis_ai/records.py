"""quantization.json and compile.json of the vendor's tools, in the form that the reference tools write."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.outputs import only_end
from dpuflow.base.pixels import Scaling
from dpuflow.base.protobuf_seal import sealed
from dpuflow.device.targets import Target, describe_fingerprint
from dpuflow.quantize.calibration_images import calibration_record
from dpuflow.vitis_ai.positions import graph_layers, keras_layers
from dpuflow.vitis_ai.tool_logs import compiler_log, quantizer_log
from dpuflow.xir import Graph
from dpuflow.xir.input_scaling import scaling_attributes

HARMLESS_ON_CPU = {
    "const", "const-fix", "fix", "fix2float", "float2fix", "softmax", "reshape", "reshape-fix", "squeeze",
    "identity",
}  # fmt: skip
"""Op types that a CPU subgraph may hold without costing anything worth a finding: the network's ends."""

STAND_IN = "Written by a stand-in for the vendor's tool in dpuflow's tests, not by that tool."


def quantization_record(
    entry: Mapping[str, Any],
    nodes: Mapping[str, Any],
    input_scaling: Scaling,
    model_path: Path | str,
    log_path: Path | str,
    images: np.ndarray,
    indices: np.ndarray | None = None,
    labels: np.ndarray | None = None,
) -> dict[str, Any]:
    """Content of quantization.json.

    Parameters
    ----------
    entry : the quantizer's entry of the configuration.
    nodes : content of nodes.json. input_scaling : see `base.pixels`.
    model_path : quantize_eval_model.pb (vai_q_tensorflow) or quantized_model.h5 (vai_q_tensorflow2).
    log_path : the tool's log.
    images, indices, labels : the calibration images that the tool saw, their rows and classes.
    """
    tool = entry["tool"]
    log = quantizer_log(log_path, tool)
    layers = graph_layers(model_path) if tool == "vai_q_tensorflow" else keras_layers(model_path)
    record = {
        "quantizer": tool,
        "release": entry["release"],
        "settings": {"calibration": entry.get("calibration", {}), **entry.get("options", {})},
        "input_scaling": input_scaling,
        "nodes": {
            "input": nodes["input"]["name"],
            "output": only_end(nodes, "the vendor's container flow")["name"],
        },
        "calibration": calibration_record(images, indices, labels),
        "folding": [],
        "adjustments": log["adjustments"],
        "layers": layers,
        "warnings": log["warnings"],
    }
    return {**record, "note": STAND_IN} if log["stand_in"] else record


def compile_record(
    compiler: str,
    release: str,
    target: Target,
    graph: Graph,
    xmodel_path: Path | str,
    log_path: Path | str,
    arch: str,
) -> dict[str, Any]:
    """Content of compile.json for a compiled file `graph` (an xir.Graph read from `xmodel_path`).

    arch : the arch.json that the compiler was given, for the record.
    UserError when the file is not the one that the log speaks of, holds no DPU instructions, or was
    compiled for another DPU than the target's.
    """
    log = compiler_log(log_path, compiler)
    _check_md5(xmodel_path, log["md5"], log_path)
    dpu = graph.subgraphs("DPU")
    if not dpu:
        raise UserError(f"{xmodel_path}: holds no DPU subgraph, every layer is on the CPU; see {log_path}")
    for subgraph in dpu:
        _check_fingerprint(xmodel_path, subgraph.attrs.get("dpu_fingerprint"), target, arch)
    findings = _findings(graph, log["on_cpu"])
    record = {
        "compiler": compiler,
        "machine_code": all(bool(subgraph.attrs.get("mc_code")) for subgraph in dpu),
        "release": release,
        "target": target.name,
        "dpu": target.dpu,
        "fingerprint": f"{target.fingerprint:#x}",
        "board": asdict(target.board) if target.board else None,
        "arch": arch,
        "dpu_subgraphs": len(dpu),
        "cpu_subgraphs": len(graph.subgraphs("CPU")),
        "findings": findings,
        "warnings": log["warnings"],
        "layers": _layers(graph),
    }
    return {**record, "note": STAND_IN} if log["stand_in"] else record


def _check_md5(path, expected, log_path):
    if expected is None:
        return
    found = hashlib.md5(Path(path).read_bytes(), usedforsecurity=False).hexdigest()
    if found != expected:
        raise UserError(f"{path}: MD5 {found}, but {log_path} says {expected}; remove both and run again")


def _check_fingerprint(path, found, target, arch):
    if found == target.fingerprint:
        return
    shown = "no DPU" if found is None else f"{found:#x} ({describe_fingerprint(found) or 'unknown DPU'})"
    raise UserError(
        f"{path}: compiled for {shown}, but target {target.name} is {target.fingerprint:#x} ({target.dpu}, "
        f"release {target.release}); a board would refuse it. The compiler read {arch}: correct the target's "
        "dpu or release"
    )


def _findings(graph, logged):
    """Layers on the CPU, as the log explains them or else as the file's CPU subgraphs show them."""
    reasons = {entry["name"]: entry["reason"] for entry in logged}
    findings = [_finding(e["name"], e["op"], e["reason"]) for e in logged if e["op"] not in HARMLESS_ON_CPU]
    for subgraph in graph.subgraphs("CPU"):
        for name in subgraph.op_names:
            op = graph.op(name)
            if op.type not in HARMLESS_ON_CPU and name not in reasons:
                findings.append(_finding(name, op.type, ""))
    return findings


def _finding(name, op, reason):
    return {"layer": name, "op": op, "reason": reason or "runs on the CPU"}


def _layers(graph):
    """Work per op as the compiler states it (attributes workload, workload_on_arch)."""
    rows = []
    for op in graph.ops:
        if op.attrs.get("workload") and op.device == "DPU":
            row = {"name": op.name, "op": op.type, "workload": int(op.attrs["workload"])}
            if op.attrs.get("workload_on_arch"):
                row["workload_on_arch"] = int(op.attrs["workload_on_arch"])
            rows.append(row)
    return rows


def enforce_on_cpu(record: Mapping[str, Any], on_cpu: str) -> None:
    """UserError for layers on the CPU when `on_cpu` is "error"."""
    if on_cpu == "error" and record["findings"]:
        listed = "; ".join(f"{f['layer']} ({f['op']}): {f['reason']}" for f in record["findings"])
        raise UserError(
            f"target {record['target']}: {len(record['findings'])} layers would run on the CPU: {listed}; "
            "change the network or set on_cpu: warn for this target"
        )


def with_input_scaling(path: Path | str, input_scaling: Scaling) -> bytes:
    """Bytes of an xmodel with the graph attributes of the input scaling, which our runners read.

    The vendor's compilers do not keep them. Protobuf messages join by concatenation, so the file's own
    bytes stay as they are; the attributes and a seal (`dpuflow.base.protobuf_seal`) follow.
    """
    extra = Graph()
    for name, value in scaling_attributes(input_scaling).items():
        extra.attrs[name] = value
    return sealed(Path(path).read_bytes() + extra.proto.SerializeToString(deterministic=True))
