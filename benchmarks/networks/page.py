"""docs/networks.md from what was measured."""

from benchmarks.networks.catalogue import CATALOGUE
from benchmarks.networks.stages import STAGES

HEAD = """\
# Networks

Made by `make networks`: networks of their usual input size with random weights (batch norms calibrated on
random pictures), through reading, quantizing (4 pictures, without fine-tuning and diagnosis), the native
compiler for the KV260's DPU (B4096) with the verification of its machine code map by map, and the emulator
(4 pictures), each stage in a process of its own as in the workflow. Seconds are processor time, of two cores
at most; memory is the greatest of the stage's process, with the weights that it reads; the latency is
that of one call from Python, estimated from the machine code. A layer on the CPU is one that this DPU has no
instruction for. Parameters are counted as the DPU gets them: batch norms folded in, a convolution in groups
(ResNeXt, RegNet) as a whole one with zeros between its groups.

"""
COLUMNS = (
    "network", "input", "parameters", "quantize", "compile", "verify", "memory of both",
    "emulate, per picture", "on the CPU", "estimated latency",
)  # fmt: skip


def page(results):
    """The Markdown text of {name: stages}."""
    passed = sum("failed" not in stages[-1] for stages in results.values())
    lines = [HEAD + f"**{passed} of {len(results)} pass.**\n"]
    for kind in dict.fromkeys(CATALOGUE[name].kind for name in results):
        lines += [f"## {kind}\n", f"| {' | '.join(COLUMNS)} |"]
        lines.append("| --- | --- |" + " ---: |" * (len(COLUMNS) - 2))
        lines += [_row(name, stages) for name, stages in results.items() if CATALOGUE[name].kind == kind]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _row(name, stages):
    found = {stage["stage"]: stage for stage in stages if "failed" not in stage}
    read, quantized, compiled, emulated = (found.get(stage) for stage in STAGES)
    cells = [name]
    cells.append("x".join(map(str, read["input"])) if read else "")
    cells.append(f"{read['parameters']:,}" if read else "")
    cells.append(f"{quantized['seconds']:.0f} s, {_memory(quantized)}" if quantized else "")
    if "failed" in stages[-1]:
        why = stages[-1]["failed"].replace("|", "/")
        return f"| {' | '.join(cells)} | **does not pass:** {why} | | | | | |"
    cells.append(f"{compiled['seconds'] - compiled['verify_seconds']:.0f} s")
    cells.append(f"{compiled['verify_seconds']:.0f} s")
    cells.append(_memory(compiled))
    cells.append(f"{1e3 * emulated['run_seconds'] / emulated['images']:.0f} ms, {_memory(emulated)}")
    cells.append(", ".join(compiled["on_cpu"]) or "none")
    cells.append(f"{compiled['latency_ms']:.2f} ms")
    return f"| {' | '.join(cells)} |"


def _memory(stage):
    return f"{stage['mebibytes'] / 1024:.1f} GiB"
