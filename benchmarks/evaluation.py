"""Images per second of what dpuflow evaluates with, against TensorFlow Lite, ONNX Runtime, TensorFlow.

    python benchmarks/evaluation.py [--threads 2] [--repeats 5] [--quick]

The frozen graph, quantize_eval_model.pb and the emulator answer the test images as their rules
do; TensorFlow Lite and ONNX Runtime run the same network, quantized after training on the same
calibration images; float TensorFlow runs the frozen graph image by image and in Keras's batches
of 32. All in one process, in turns, on input that is ready in memory in the form that each one
takes. Needs requirements-bench.txt for ONNX Runtime.
"""

import sys
import tempfile
from pathlib import Path

import contenders
import numpy as np
import subject
from measuring import Goals, medians, parser_of, progress, table

from dpuflow.base.pixels import scale_pixels
from dpuflow.base.tensorflow_env import tensorflow
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.emulator import Emulator
from dpuflow.network import WEIGHTED
from dpuflow.quantize.folding import fold
from dpuflow.tfgraph.freeze import FrozenGraph
from dpuflow.tfgraph.graph_reader import read_network, read_network_and_nodes

SINGLE_IMAGES = 1024
"""Images for contenders that take one at a time."""


def run_of(chosen, folder):
    """(frozen graph, evaluation graph, xmodel, images, labels, calibration images) of a Subject."""
    if chosen is not None:
        data = read_dataset(chosen.dataset_h5)
        graphs = (
            chosen.model / "frozen_graph.pb",
            chosen.model / "reference" / "quantize_eval_model.pb",
            chosen.xmodel,
        )
        return *graphs, *data.subset("test"), data.subset("calibration")[0]
    from dpuflow.device.targets import get_target
    from dpuflow.dpuczdx8g.compile_report import compile_reference
    from dpuflow.quantize.reference import quantize, write_artifacts

    frozen, model, graph, report, xmodel = (Path(folder) / n for n in ("f.pb", "q.h5", "e.pb", "r", "x"))
    subject.random_frozen_graph(frozen)
    images, labels = subject.random_images(64)
    scaling = {"subtract": 128, "divide": 128}
    quantized, content = quantize(read_network(frozen), images[:8], {"diagnosis": False}, scaling)
    write_artifacts(quantized, content, model, graph, report)
    compile_reference(quantized, get_target("DPUCZDX8G_ISA1_B4096")).graph.save(xmodel)
    return frozen, graph, xmodel, images, labels, images[:8]


def multiplications(network):
    """Multiply-accumulates per image."""
    weighted = [layer for layer in network.layers if layer.op in WEIGHTED]
    return sum(layer.weights.size * int(np.prod(layer.shape[:-1])) for layer in weighted)


def dpuflow_ways(files, ends, images, x, threads):
    """{name: (function, images)}: what the three evaluation rules do."""
    frozen, eval_graph, xmodel = files
    emulator = Emulator(str(xmodel), threads=threads)
    q = emulator.quantize_input(images)
    ways = {f"dpuflow: emulator ({emulator.backend})": (lambda: emulator.run(q), len(q))}
    for name, path in (("frozen graph", frozen), ("quantize_eval_model.pb", eval_graph)):
        graph = FrozenGraph(path, *ends, threads)
        ways[f"dpuflow: {name}"] = (lambda graph=graph: graph.run(x), len(x))
    return ways


def other_ways(frozen, ends, x, calibration, threads, folder):
    """{name: (function, images)}: what one would use instead."""
    ways = {}
    float_graph = FrozenGraph(frozen, *ends, threads)
    progress("TensorFlow Lite converts")
    lite = contenders.tflite_int8(frozen, ends, calibration)
    progress("ONNX Runtime quantizes")
    onnx = Path(folder) / "int8.onnx"
    contenders.onnx_int8(fold(read_network_and_nodes(frozen, *ends)[0])[0], calibration, onnx)
    for batch in (1, 32):
        part = x[:SINGLE_IMAGES] if batch == 1 else x
        ways[f"TensorFlow float, batch {batch}"] = (
            lambda part=part, batch=batch: float_graph.run(part, batch),
            len(part),
        )
        for count in sorted({1, threads}):
            for kind, runner in (
                ("TensorFlow Lite INT8", contenders.TfLite(lite, batch, count)),
                ("ONNX Runtime INT8", contenders.OnnxRuntime(onnx, batch, count)),
            ):
                ready = runner.quantize(part)
                ways[f"{kind}, batch {batch}, {count} thread{'s' * (count > 1)}"] = (
                    lambda runner=runner, ready=ready: runner.run(ready),
                    len(part),
                )
    return ways


def main():
    """Measure and print the section; returns the exit status."""
    parser = parser_of(__doc__)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.quick:
        options.repeats = 1
    chosen = None if options.quick else subject.find()
    tensorflow(options.threads)
    with tempfile.TemporaryDirectory(prefix="dpuflow-bench-") as folder:
        *files, images, labels, calibration = run_of(chosen, folder)
        network, nodes = read_network_and_nodes(files[0])
        ends = nodes["input"], nodes["output"]
        emulator_scaling = Emulator(str(files[2])).graph.attrs
        scaling = {key: float(emulator_scaling[f"input_{key}"]) for key in ("subtract", "divide")}
        x = scale_pixels(images, scaling)
        ways = dpuflow_ways(files, ends, images, x, options.threads)
        ours = list(ways)
        ways |= other_ways(files[0], ends, x, scale_pixels(calibration, scaling), options.threads, folder)
        right = {name: run().argmax(axis=1) == labels[:count] for name, (run, count) in ways.items()}
        progress("measuring")
        seconds = medians({name: run for name, (run, _) in ways.items()}, options.repeats)
    rates = {name: count / seconds[name] for name, (_, count) in ways.items()}
    macs = multiplications(network)
    print("## Evaluation\n")
    rows = [
        (
            name,
            f"{rate:,.0f}",
            f"{rates[ours[0]] / rate:.2f}",
            f"{rate * macs / 1e9:.1f}",
            f"{100 * right[name].mean():.2f} %" if ways[name][1] == len(images) else "",
        )
        for name, rate in rates.items()
    ]
    print(table(("way", "images/s", "emulator is faster by", "10^9 MAC/s", "accuracy"), rows))
    what = chosen.title if chosen else "A random network on random images"
    few = min(SINGLE_IMAGES, len(images))
    print(
        f"{what}, {len(images):,} test images (batch 1: {few:,}), {macs:,} multiply-accumulates each; median "
        f"of {options.repeats} rounds in turns after a warm-up; {options.threads} threads unless the row "
        "says otherwise. The input lies ready in memory in the form that each one takes.\n"
    )
    lite = max(rate for name, rate in rates.items() if "Lite" in name)
    runtime = max(rate for name, rate in rates.items() if "ONNX" in name)
    real = max(rate for name, rate in rates.items() if "float" in name)
    goals = Goals(not options.quick)
    for rival, rate in (("TensorFlow Lite INT8", lite), ("ONNX Runtime INT8", runtime)):
        ratio = rates[ours[0]] / rate
        goals.add(f"the emulator is {ratio:.2f} x as fast as {rival} at its best (goal 1)", ratio >= 1)
    ratio = rates[ours[1]] / real
    goals.add(f"the frozen graph runs {ratio:.2f} x as fast as in batches of 32 (goal 0.95)", ratio >= 0.95)
    return goals.finish()


if __name__ == "__main__":
    sys.exit(main())
