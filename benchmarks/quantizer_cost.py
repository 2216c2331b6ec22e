"""Quantizer: seconds and peak memory against calibration images, beside TensorFlow Lite's.

    python benchmarks/quantizer_cost.py [--images 60 120 240 480 960] [--repeats 3] [--quick]

Both quantize the same frozen graph with the same training images, each in a process of its own:
dpuflow with its defaults (without the diagnosis), TensorFlow Lite with its post-training
quantization to full INT8. Imports are not in the time, but in the memory. Which of dpuflow's
methods is how accurate: quantizer.py.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import subject
from measuring import Goals, in_child, parser_of, progress, table

SETTINGS = {"dpuflow, defaults": {}, "dpuflow, without fast_finetune": {"fast_finetune": False}}
TFLITE = "TensorFlow Lite"
IMAGES = [60, 120, 240, 480, 960]
ACCURACY_GOAL = 0.001
"""How much less accurate than TensorFlow Lite's model ours may be: its steps need not be powers of two."""


def quantize_dpuflow(frozen, images_path, count, settings, scaling, test_path):
    """Quantize; returns the classes of the test images, or None if there are none."""
    from dpuflow.quantize.reference import predict, quantize
    from dpuflow.tfgraph.graph_reader import read_network

    images = np.load(images_path)[:count]
    settings = {**settings, "diagnosis": False, "calibration": {"images": count}}
    quantized, _ = quantize(read_network(frozen), images, settings, scaling)
    return predict(quantized, np.load(test_path)).argmax(axis=1) if test_path else None


def quantize_tflite(frozen, images_path, count, ends, scaling, test_path):
    """The same with TensorFlow Lite."""
    import contenders

    from dpuflow.base.pixels import scale_pixels

    model = contenders.tflite_int8(frozen, ends, scale_pixels(np.load(images_path)[:count], scaling))
    if not test_path:
        return None
    runner = contenders.TfLite(model, 32, 2)
    return runner.run(runner.quantize(scale_pixels(np.load(test_path), scaling))).argmax(axis=1)


def data_of(chosen, most, folder):
    """(frozen graph, scaling, test labels): images go to train.npy and test.npy in `folder`.

    train.npy is such that its first 60, 120, ... images hold every class about equally often.
    """
    if chosen is None:
        frozen, scaling = folder / "frozen_graph.pb", {"subtract": 128, "divide": 128}
        subject.random_frozen_graph(frozen)
        images, labels = subject.random_images(most)
        test = images
    else:
        from dpuflow.base.files import read_json
        from dpuflow.datasets.dataset_file import read_dataset

        frozen = chosen.model / "frozen_graph.pb"
        scaling = read_json(chosen.model / "reference" / "quantization.json")["input_scaling"]
        data = read_dataset(chosen.dataset_h5)
        test, labels = data.subset("test")
        images = in_turns(*data.subset("train"), most)
    np.save(folder / "train.npy", images)
    np.save(folder / "test.npy", test)
    return str(frozen), scaling, labels


def in_turns(images, labels, count):
    """The first `count` images when the classes take turns."""
    turn = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        turn[rows] = np.arange(len(rows))
    return images[np.lexsort((labels, turn))[:count]]


def measure(options, folder):
    """({(way, count): Measured}, {(way, count): classes}, test labels)."""
    chosen = None if options.quick else subject.find()
    frozen, scaling, labels = data_of(chosen, max(options.images), folder)
    from dpuflow.tfgraph.graph_reader import read_network_and_nodes

    _, nodes = read_network_and_nodes(frozen)
    ends = nodes["input"], nodes["output"]
    train, test = str(folder / "train.npy"), str(folder / "test.npy")
    found, classes = {}, {}
    for count in options.images:
        ways = {
            name: (quantize_dpuflow, settings, ("dpuflow.quantize.reference",))
            for name, settings in SETTINGS.items()
        } | {TFLITE: (quantize_tflite, ends, ("tensorflow", "contenders"))}
        for name, (function, choice, imports) in ways.items():
            progress(f"{name}, {count} images")
            given = (frozen, train, count, choice, scaling)
            found[name, count] = in_child(function, *given, None, repeats=options.repeats, imports=imports)
            once = in_child(function, *given, test, repeats=1, warm_up=False, imports=imports)
            classes[name, count] = once.result
    return found, classes, labels, chosen


def main():
    """Measure and print the section; returns the exit status."""
    parser = parser_of(__doc__, repeats=3)
    parser.add_argument("--images", type=int, nargs="+", default=IMAGES, help="calibration images")
    options = parser.parse_args()
    if options.quick:
        options.images, options.repeats = [8], 1
    with tempfile.TemporaryDirectory(prefix="dpuflow-bench-") as name:
        found, classes, labels, chosen = measure(options, Path(name))
    print("## Quantizer\n")
    accuracy = {key: float((answers == labels).mean()) for key, answers in classes.items()}
    rows = [
        (way, count, f"{one.median:.2f}", f"{one.peak:.0f}", f"{100 * accuracy[way, count]:.3f} %")
        for (way, count), one in found.items()
    ]
    headers = ("way", "calibration images", "seconds", "peak memory, MiB", "accuracy on the test images")
    print(table(headers, rows))
    what = chosen.title if chosen else "A random network on random images"
    print(
        f"{what}. Median of {options.repeats} after a warm-up, each in a process of its own; memory is the "
        "whole process with its libraries. Accuracy: the integer network on every test image.\n"
    )
    goals = Goals(not options.quick)
    most, ours = max(options.images), next(iter(SETTINGS))
    lost = accuracy[TFLITE, most] - accuracy[ours, most]
    goals.add(
        f"{100 * lost:.3f} points less accurate than TensorFlow Lite's model with {most} images "
        f"(goal: at most {100 * ACCURACY_GOAL})",
        lost <= ACCURACY_GOAL,
    )
    memory = found[ours, most].peak / found[TFLITE, most].peak
    goals.add(f"{memory:.2f} x the memory of TensorFlow Lite (goal: at most 1)", memory <= 1)
    return goals.finish()


if __name__ == "__main__":
    sys.exit(main())
