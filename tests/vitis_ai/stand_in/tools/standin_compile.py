"""What the stand-in compilers share: arch.json, lowering with dpuflow, a log of the vendor's form."""

import hashlib
import json
import os
from pathlib import Path

from common import BANNER

from dpuflow.compiler.reference import lower
from dpuflow.device.targets import load_targets


def read_arch(parser, path):
    """The DPU that an arch.json names, as a Target of the container's release."""
    try:
        arch = json.loads(Path(path).read_text())
    except OSError as error:
        parser.refuse(f"{path}: {error.strerror}")
    targets = load_targets(
        extra={"stand_in": {"dpu": "DPUCZDX8G_ISA1_B4096", "release": os.environ["STAND_IN_RELEASE"]}}
    )
    for target in targets.values():
        if int(arch["fingerprint"], 16) in target.fingerprints.values() and target.name == target.dpu:
            release = next(r for r, f in target.fingerprints.items() if f == int(arch["fingerprint"], 16))
            return load_targets(extra={"stand_in": {"dpu": target.dpu, "release": release}})["stand_in"]
    parser.refuse(f"{path}: no DPU has fingerprint {arch['fingerprint']}")


def write(tool, quantized, target, folder, name):
    """NAME.xmodel, meta.json and md5sum.txt in `folder`, and the log on standard output."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    graph = lower(quantized, target)
    without = ("input_subtract", "input_divide", "class_count", "origin")  # the vendor's files lack these
    for attribute in without:
        if attribute in graph.attrs:
            del graph.attrs[attribute]
    data = graph.to_bytes()
    (folder / f"{name}.xmodel").write_bytes(data)
    (folder / "meta.json").write_text(json.dumps({"target": "DPUv2", "filename": f"{name}.xmodel"}))
    md5 = hashlib.md5(data).hexdigest()
    (folder / "md5sum.txt").write_text(f"{md5}  {name}.xmodel\n")
    here = Path.cwd()
    for line in (
        "*" * 50,
        "* VITIS_AI Compilation - Xilinx Inc.",
        "*" * 50,
        BANNER.format(tool),
        "[UNILOG][INFO] Compile mode: dpu",
        "[UNILOG][INFO] Debug mode: null",
        f"[UNILOG][INFO] Target architecture: {target.dpu}",
        f"[UNILOG][INFO] Graph name: {quantized.network.name}, with op num: {len(graph.ops)}",
        "[UNILOG][INFO] Begin to compile...",
        f"[UNILOG][INFO] Total device subgraph number {len(graph.subgraphs())}, "
        f"DPU subgraph number {len(graph.subgraphs('DPU'))}",
        "[UNILOG][INFO] Compile done.",
        f'[UNILOG][INFO] The meta json is saved to "{here}/{folder}/meta.json"',
        f'[UNILOG][INFO] The compiled xmodel is saved to "{here}/{folder}/{name}.xmodel"',
        f"[UNILOG][INFO] The compiled xmodel's md5sum is {md5}, and has been saved to "
        f'"{here}/{folder}/md5sum.txt"',
    ):
        print(line)


def check_options(parser, text, allowed):
    """--options: a JSON object with documented keys."""
    options = json.loads(text)
    unknown = set(options) - set(allowed)
    if unknown:
        parser.refuse(f"--options: unknown {sorted(unknown)}")
    return options
