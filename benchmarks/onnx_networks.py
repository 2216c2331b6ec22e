"""Which networks go from an ONNX file to verified machine code: the table of docs/onnx.md.

    python benchmarks/onnx_networks.py [NETWORK ...] [--size 224] [--write]

Networks of torchvision with random weights, exported by both of PyTorch's exporters; each is read, compared
with onnxruntime, quantized (8 images of noise), compiled for a KV260 by the compiler `native`, which verifies
its code on the instruction simulator, and emulated on two images against that simulator's order of layers.
`--write` puts the table into docs/onnx.md. Needs what requirements-test.txt installs.
"""

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch_networks
from measuring import REPO, table

NETWORKS = (
    *("resnet18", "mobilenet_v2", "squeezenet1_1", "vgg11", "densenet121", "googlenet"),
    *("shufflenet_v2_x0_5", "mobilenet_v3_small", "mnasnet0_5", "regnet_y_400mf", "efficientnet_b0"),
    *("convnext_tiny", "vit_b_16"),
)
SCALING = {"subtract": 127.5, "divide": 64}
SETTINGS = {"diagnosis": False, "position_search": {"criterion": None}, "fast_finetune": False}
MARKS = "<!-- table: made by benchmarks/onnx_networks.py -->", "<!-- end -->"


def measure(path: Path, size: int) -> dict:
    """What becomes of one file: {"layers", "difference", "seconds", "outcome"}."""
    from dpuflow.base.errors import UserError
    from dpuflow.base.pixels import scale_pixels
    from dpuflow.device.targets import get_target
    from dpuflow.dpuczdx8g.native.report import compile_native
    from dpuflow.emulator import Emulator
    from dpuflow.onnx_graph.model_file import open_model
    from dpuflow.onnx_graph.reader import read_onnx_and_layouts
    from dpuflow.onnx_graph.runtime import OnnxModel
    from dpuflow.quantize.reading_proof import largest_difference
    from dpuflow.quantize.reference import quantize

    shape = (size, size, 3)
    images = np.random.default_rng(3).integers(0, 256, (8, *shape), np.uint8)
    row = {"layers": "", "difference": "", "seconds": ""}
    begun = time.perf_counter()
    try:
        opened = open_model(path, shape)
        row["opset"] = next(e.version for e in opened.model.opset_import if e.domain in ("", "ai.onnx"))
        network, layouts = read_onnx_and_layouts(opened, shape, path.stem)
        x = scale_pixels(images[:2], SCALING)
        found = OnnxModel(opened).run_all(x)
        answers = {name: layout.arranged(found[name]) for name, layout in layouts.items()}
        row["difference"] = f"{largest_difference(network, x, answers, path, 'onnxruntime', 1e-4):.0e}"
        row["layers"] = len(network.layers)
        quantized, _ = quantize(network, images, SETTINGS, SCALING)
        compiled = compile_native(quantized, get_target("kv260"), calibration=images)
        with Emulator(compiled.graph) as emulator:
            emulator.run(emulator.quantize_input(images[:2]))
        row["outcome"] = "verified code"
    except UserError as error:
        text = str(error).replace(f"{path}: ", "")
        row["outcome"] = re.sub(r" Supported operators: .*", "", text.splitlines()[0])[:200]
    row["seconds"] = f"{time.perf_counter() - begun:.0f}"
    return row


def main():
    """Measure, print and perhaps write the table."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--size", type=int, default=224, help="of the images, in pixels")
    parser.add_argument("--write", action="store_true", help="put the table into docs/onnx.md")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="dpuflow-onnx-") as folder:
        for name in options.networks:
            network = torch_networks.random_network(name, options.size)
            for exporter in torch_networks.EXPORTERS:
                path = Path(folder, f"{name}.onnx")
                torch_networks.export(network, options.size, path, exporter)
                row = measure(path, options.size)
                order = ("opset", "layers", "difference", "outcome", "seconds")
                rows.append((name, exporter, *(row.get(key, "") for key in order)))
                print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
                for file in Path(folder).iterdir():
                    file.unlink()
    headers = (
        "torchvision",
        "exporter",
        "opset",
        "layers",
        "difference to onnxruntime",
        "outcome",
        "seconds",
    )
    text = (
        f"Random weights, {options.size} x {options.size} pixels, KV260; seconds of reading, comparing, "
        f"quantizing (plain), compiling and verifying on two cores:\n\n{table(headers, rows)}\n"
    )
    print(text)
    if options.write:
        page = REPO / "docs/onnx.md"
        before, rest = page.read_text().split(MARKS[0])
        page.write_text(f"{before}{MARKS[0]}\n\n{text}\n{MARKS[1]}{rest.split(MARKS[1])[1]}")


if __name__ == "__main__":
    main()
