"""Images per second at real size, 224 x 224 in colour: the emulator and TensorFlow Lite's INT8 interpreter.

    python benchmarks/real_size_emulator.py [--threads 2] [--images 32] [--networks MobileNet ...]

Each network has random weights; it goes through the chain's own reader, quantizer (two images, plain) and
compiler, and through TensorFlow's converter (int8 input and output, XNNPACK). All contenders of a network
take turns in one process. TensorFlow Lite is judged by the best of its batch sizes, the emulator by one call
with all images.
"""

import sys
import tempfile
from pathlib import Path

import contenders
import numpy as np
from measuring import Goals, median_times, parser_of, progress, table
from real_size_networks import NETWORKS, freeze

from dpuflow.base.tensorflow_env import tensorflow
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.compile_report import compile_reference
from dpuflow.emulator import Emulator
from dpuflow.quantize.reference import quantize
from dpuflow.tfgraph.graph_reader import read_network_and_nodes

GOALS = {"ResNet50": 1.0, "MobileNet": 0.8, "MobileNetV2": 0.8, "EfficientNet-Lite0": 0.8}
"""Times as fast as TensorFlow Lite, at least."""
SINGLE_GOAL = 0.8
"""The same where both get one image a call."""
BATCHES = (1, 4, 16)
PLAIN = {"equalization": False, "fast_finetune": False, "diagnosis": False}
SCALING = {"subtract": 128, "divide": 128}


def contenders_of(name, options, folder):
    """{contender: function} for one network; `dpuflow` ones first."""
    random = np.random.default_rng(0)
    size, frozen = options.size, Path(folder) / f"{name}.pb"
    progress(f"{name}: freezing, quantizing, compiling")
    freeze(name, size, frozen)
    network, nodes = read_network_and_nodes(frozen)
    pixels = random.integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    quantized, _ = quantize(network, pixels, PLAIN, SCALING)
    graph = compile_reference(quantized, get_target("DPUCZDX8G_ISA1_B4096")).graph
    emulator = Emulator(graph, threads=options.threads)
    images = random.integers(-128, 128, (options.images, size, size, 3)).astype(np.int8)
    ways = {
        "emulator": lambda: emulator.run(images),
        "emulator, image by image": lambda: [emulator.run(images[i : i + 1]) for i in range(len(images))],
    }
    progress(f"{name}: TensorFlow Lite converts")
    floats = random.random((2, size, size, 3), np.float32)
    model = contenders.tflite_int8(frozen, (nodes["input"], nodes["output"]), floats)
    for batch in BATCHES:
        lite = contenders.TfLite(model, batch, options.threads)
        ways[f"TensorFlow Lite INT8, batch {batch}"] = lambda lite=lite: lite.run(images)
    return ways


def main():
    """Measure and print the section; returns the exit status."""
    parser = parser_of(__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    options = parser.parse_args()
    if options.quick:
        options.repeats, options.size, options.images, options.networks = 1, 32, 4, ["MobileNet"]
    tensorflow(options.threads)
    rows, goals = [], Goals(not options.quick)
    for name in options.networks:
        with tempfile.TemporaryDirectory(prefix="dpuflow-bench-") as folder:
            ways = contenders_of(name, options, folder)
            times = {way: wall for way, (wall, _) in median_times(ways, options.repeats).items()}
        rates = {way: options.images / wall for way, wall in times.items()}
        whole, single, *lite = rates.values()
        lite_single = lite[BATCHES.index(1)]
        best = max(lite)
        ratios = whole / best, single / whole
        rows.append((name, *(f"{rate:,.0f}" for rate in rates.values()), *(f"{n:.2f}" for n in ratios)))
        text = (
            f"{name}: {whole / best:.2f} x as fast as TensorFlow Lite INT8 at its best (goal {GOALS[name]})"
        )
        goals.add(text, whole / best >= GOALS[name])
        ratio = single / lite_single
        text = f"{name}: image by image {ratio:.2f} x as fast as TensorFlow Lite INT8 (goal {SINGLE_GOAL})"
        goals.add(text, ratio >= SINGLE_GOAL)
    size = options.size
    print("## Emulator at real size\n")
    lite = (f"TensorFlow Lite, batch {batch}" for batch in BATCHES)
    heads = ("images/s", "emulator", "image by image", *lite, "ratio", "image by image / emulator")
    print(table(heads, rows))
    print(
        f"{options.images} random images of {size}x{size}x3, int8 in, {options.threads} threads, medians of "
        f"{options.repeats} rounds in turns after a warm-up. Ratio: to TensorFlow Lite's best batch.\n"
    )
    return goals.finish()


if __name__ == "__main__":
    sys.exit(main())
