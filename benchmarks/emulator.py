"""Images per second: the emulator, TensorFlow Lite's INT8 interpreter, TensorFlow's float graph.

    python benchmarks/emulator.py                                 # a random network of its own
    python benchmarks/emulator.py --xmodel M.xmodel --frozen frozen_graph.pb

All contenders run on random images in the same process, in turns. TensorFlow Lite converts the
same float graph to INT8 (calibrated on random images) and runs it with `--threads` threads, one
image per call and in batches of 32; the float graph is evaluated one image at a time. Loading is
measured apart from running. evaluation.py compares the same on the test images of a run.
"""

import sys
import tempfile
import time
from pathlib import Path

import contenders
import numpy as np
import subject
from measuring import Goals, median_times, parser_of, table

from dpuflow.emulator import Emulator, random_cases
from dpuflow.tfgraph.freeze import FrozenGraph
from dpuflow.tfgraph.graph_reader import read_network_and_nodes
from dpuflow.xir import Graph

SECONDS_GOAL = 3.0
TFLITE_GOAL = 1.0
FLOAT_GOAL = 2.0
SINGLE_IMAGES = 512
"""Images for TensorFlow, which takes one at a time."""
LITE_IMAGES = 2048


def options_of_command_line():
    """The parsed and checked command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--xmodel")
    parser.add_argument("--frozen")
    parser.add_argument("--images", type=int, default=7172)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if bool(options.xmodel) != bool(options.frozen):
        parser.error("--xmodel and --frozen belong together")
    if options.quick:
        options.images, options.repeats = 64, 1
    return options


def rivals(frozen, images, threads):
    """{name: (function, images)}: TensorFlow Lite and TensorFlow on the same network."""
    _, nodes = read_network_and_nodes(frozen)
    ends = nodes["input"], nodes["output"]
    random = np.random.default_rng(0).random((50, *images.shape[1:]), np.float32)
    model = contenders.tflite_int8(frozen, ends, random)
    few, ways = images[:LITE_IMAGES], {}
    for batch in (1, 32):
        lite = contenders.TfLite(model, batch, threads)
        ways[f"TensorFlow Lite INT8, batch {batch}"] = (lambda lite=lite: lite.run(few), len(few))
    graph, single = FrozenGraph(frozen, *ends), images[:SINGLE_IMAGES].astype(np.float32)
    ways["TensorFlow float graph, batch 1"] = (lambda: graph.run(single, 1), len(single))
    return ways


def main():
    """Measure and print the section; returns the exit status."""
    options = options_of_command_line()
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    graph = Graph.load(options.xmodel) if options.xmodel else random_cases.sign_network(rng)
    emulator = Emulator(graph, threads=options.threads)
    images = rng.integers(-128, 128, (options.images, *emulator.input.tensor.shape[1:])).astype(np.int8)
    emulator.run(images[:1])
    loading = time.perf_counter() - start
    plain = Emulator(graph, options.threads, use_native=False)
    ways = {
        f"emulator ({emulator.backend})": (lambda: emulator.run(images), len(images)),
        "emulator (numpy)": (lambda: plain.run(images), len(images)),
    }
    with tempfile.TemporaryDirectory(prefix="dpuflow-bench-") as folder:
        frozen = options.frozen
        if frozen is None:
            frozen = Path(folder) / "random.pb"
            subject.random_frozen_graph(frozen, (32, 64, 64), 128)
        ways |= rivals(frozen, images, options.threads)
    times = median_times({name: run for name, (run, _) in ways.items()}, options.repeats)
    rates = {name: count / times[name][0] for name, (_, count) in ways.items()}
    print("## Emulator\n")
    rows = [
        (name, f"{rates[name]:,.0f}", f"{count / times[name][1]:,.0f}") for name, (_, count) in ways.items()
    ]
    print(table((f"`{graph.name}`", "images/s", "images per second of CPU time"), rows))
    size = "x".join(map(str, images.shape[1:]))
    print(
        f"{len(images):,} random images of {size}, {options.threads} threads, median of {options.repeats} "
        f"rounds in turns after a warm-up. Loading and the first image: {loading:.3f} s.\n"
    )
    return judge(times, rates, len(images), not options.quick)


def judge(times, rates, images, binding):
    """Print the goal lines; returns the exit status."""
    first, _, lite, lite_batched, real = rates
    goals, seconds = Goals(binding), times[first][0]
    goals.add(f"all {images:,} images in {seconds:.3f} s (goal {SECONDS_GOAL:.0f})", seconds < SECONDS_GOAL)
    for name, goal in ((lite, TFLITE_GOAL), (lite_batched, TFLITE_GOAL), (real, FLOAT_GOAL)):
        ratio = rates[first] / rates[name]
        goals.add(f"{ratio:.2f} x as fast as {name} (goal {goal:.0f})", ratio >= goal)
    return goals.finish()


if __name__ == "__main__":
    sys.exit(main())
