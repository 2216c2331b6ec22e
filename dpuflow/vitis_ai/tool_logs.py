"""What the logs of the vendor's quantizers and compilers say.

Forms: vai_q_tensorflow prints "INFO: ..." lines, TensorFlow-style warnings marked [DECENT_WARNING] and a
"Quantization Summary"; vai_q_tensorflow2 prints "[VAI INFO] ..." and "[VAI WARNING] ..." lines; the compilers
print "[UNILOG][LEVEL] ..." lines, from 3.0 on behind a glog prefix.
"""

import re
from pathlib import Path
from typing import Any

from dpuflow.base.errors import UserError

_ADJUSTMENT = re.compile(
    r"Shift (?P<shift>cut|bias)(?: leakyrelu)? of (?:node|layer) (?P<name>\S+) is (?P<value>-?\d+)\. "
    r"It exceeds? range \[(?P<low>-?\d+), (?P<high>-?\d+)\][,.] "
    r"[Mm]odify (?:quantize pos|[wb]pos) from (?P<before>-?\d+) to (?P<after>-?\d+)"
)
_WARNING = re.compile(r"\[(?:DECENT_WARNING|VAI WARNING|UNILOG\]\[WARNING)\]\s*(?P<text>.*)")
_FAULT = re.compile(r"\[(?:DECENT_ERROR|VAI ERROR|UNILOG\]\[(?:ERROR|FATAL))\]\s*(?P<text>.*)")
_ON_CPU = re.compile(
    r"xir::Op\{name = (?P<name>[^,]+), type = (?P<type>[^}]+)\}.*?assigned to CPU(?:: (?P<why>.*)|\.?)$"
)
_QUANTIZED = {
    "vai_q_tensorflow": re.compile(r"quantize_eval_model: \S+"),
    "vai_q_tensorflow2": re.compile(r"\[VAI INFO\] Quantization Finished"),
}
_STAND_IN = re.compile(r"dpuflow stand-in")
_NOT_A_POSITION = 2**20
"""Beyond this a position is a number that was never set: output nodes named wrongly leave such traces."""


def read_log(path: Path | str) -> list[str]:
    """Lines of a log; progress bars (carriage returns) count as lines of their own."""
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as stream:
            return [line.rstrip() for line in re.split(r"[\r\n]+", stream.read())]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _texts(pattern, lines):
    return list(dict.fromkeys(match["text"].strip() for line in lines if (match := pattern.search(line))))


def quantizer_log(path: Path | str, tool: str) -> dict[str, Any]:
    """What the log of a quantizer says: adjustments, warnings, whether it is a stand-in's.

    Returns
    -------
    dict: adjustments ([{"tensor", "from", "to", "why"}] as in quantization.json), warnings (other
    sentences), stand_in (bool). UserError when the log does not report success or holds errors.
    """
    lines = read_log(path)
    _refuse_faults(path, tool, lines)
    if not any(_QUANTIZED[tool].search(line) for line in lines):
        raise UserError(f"{path}: {tool} does not report that it finished; see the end of its log")
    adjustments = [_adjustment(path, match) for line in lines if (match := _ADJUSTMENT.search(line))]
    warnings = [text for text in _texts(_WARNING, lines) if not _ADJUSTMENT.search(text)]
    return {"adjustments": adjustments, "warnings": warnings, "stand_in": _is_stand_in(lines)}


def _adjustment(path, match):
    before, after = int(match["before"]), int(match["after"])
    if abs(after) > _NOT_A_POSITION:
        raise UserError(
            f"{path}: the position of {match['name']} became {after}: part of the graph was not calibrated. "
            "The output node is not the end of the network"
        )
    part = "weights" if match["shift"] == "cut" else "bias"
    return {
        "tensor": f"{layer_name(match['name'])}/{part}",
        "from": before,
        "to": after,
        "why": f"shift_{match['shift']} was {match['value']}",
    }


def layer_name(node: str) -> str:
    """Name of the layer that a graph node belongs to: "conv1/Conv2D" -> "conv1"."""
    return node.rpartition("/")[0] or node


def compiler_log(path: Path | str, tool: str) -> dict[str, Any]:
    """What the log of a compiler says.

    Returns
    -------
    dict: target (name that the compiler printed), subgraphs (number of device subgraphs), dpu_subgraphs,
    md5, on_cpu ([{"name", "op", "reason"}]), warnings, stand_in. UserError when it did not finish.
    """
    lines = read_log(path)
    _refuse_faults(path, tool, lines)
    text = "\n".join(lines)
    if "Compile done" not in text:
        raise UserError(f"{path}: {tool} does not report that it finished; see the end of its log")
    counts = re.search(r"Total device subgraph number (\d+), DPU subgraph number (\d+)", text)
    target = re.search(r"Target architecture: (\S+)", text)
    md5 = re.search(r"md5sum is ([0-9a-f]{32})", text)
    warnings = _texts(_WARNING, lines)
    return {
        "target": target[1] if target else None,
        "subgraphs": int(counts[1]) if counts else None,
        "dpu_subgraphs": int(counts[2]) if counts else None,
        "md5": md5[1] if md5 else None,
        "on_cpu": [_on_cpu(match) for text in warnings if (match := _ON_CPU.search(text))],
        "warnings": [text for text in warnings if not _ON_CPU.search(text)],
        "stand_in": _is_stand_in(lines),
    }


def _on_cpu(match):
    reason = (match["why"] or "").strip(" .[]\"'")
    return {"name": match["name"].strip(), "op": match["type"].strip(), "reason": reason}


def _refuse_faults(path, tool, lines):
    faults = _texts(_FAULT, lines)
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise UserError(f"{path}: {tool} reports an error: {faults[0]}{more}")


def _is_stand_in(lines):
    return any(_STAND_IN.search(line) for line in lines)
