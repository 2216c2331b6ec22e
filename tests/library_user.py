"""A program that uses dpuflow as a library, started by test_wheel.py: frozen graph -> board's answers.

    python library_user.py FROZEN_GRAPH FOLDER

Writes its files to FOLDER and prints, as JSON, where dpuflow lies and what came out.
"""

import json
import sys
from pathlib import Path

import numpy as np

import dpuflow
from dpuflow.base.files import sha256
from dpuflow.board import bundle
from dpuflow.board.compare import board_record, network_outputs
from dpuflow.board.connection import AGENT
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.emulator import Emulator
from dpuflow.network.quantized_file import read_quantized, write_quantized
from dpuflow.quantize.reference import quantize
from dpuflow.tfgraph.graph_reader import read_network
from dpuflow.virtual_board.run import run
from dpuflow.vitis_ai import programs

CLASSES = ["A", "B", "C", "D", "E"]


def main(graph, folder):
    """Quantize, compile, emulate, bundle, run on the virtual board; the results as a dict."""
    random = np.random.default_rng(4)
    images = random.integers(0, 256, (48, 12, 12, 1), dtype=np.uint8)
    labels = random.integers(0, len(CLASSES), len(images))
    quantized, report = quantize(
        read_network(graph), images[:24], input_scaling={"subtract": 128, "divide": 128}
    )
    write_quantized(folder / "quantized_model.h5", quantized)
    target = get_target("kv260")
    compiled = compile_native(read_quantized(folder / "quantized_model.h5"), target)
    compiled.graph.save(folder / "model.xmodel")
    bundle.build(folder / "bundle.tar", folder / "model.xmodel", images, labels, CLASSES, target, "test")
    answer = run(folder / "bundle.tar", folder / "board", {"limit": 40}, target)
    content = bundle.Bundle.open(folder / "bundle.tar")
    with Emulator(content.graph) as native, Emulator(content.graph, use_native=False) as plain:
        backends = [native.backend, plain.backend]
        outputs = [network_outputs(emulator, content.meta, images) for emulator in (native, plain)]
    record = board_record(folder / "board", folder / "bundle.tar", runner="virtual_board")
    foreign = [AGENT, *(programs.FOLDER / name for name in programs.NAMES)]
    return {
        "package": str(Path(dpuflow.__file__).parent),
        "backends": backends,
        "agreement": report["steps"][-1]["agreement"],
        "outputs": [output.tolist() for output in outputs],
        "board": {
            "images": answer["images"],
            "equal": record["agreement_with_emulator"]["equal"],
            "xdputil": answer["board"]["xdputil"]["DPU IP Spec"]["IP version"],
        },
        "predictions": record["predictions"],
        "sha256": {name: sha256(folder / name) for name in ("model.xmodel", "bundle.tar")},
        "programs": [sha256(path) for path in foreign],
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
