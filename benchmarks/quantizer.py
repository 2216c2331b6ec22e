"""Methods of the reference quantizer against accuracy, agreement and time, as a Markdown table.

    python benchmarks/quantizer.py DATASET.h5 NETWORK=FOLDER[,FOLDER...] [...] [--methods a,b] [--images N]

DATASET.h5 is `results/{dataset}/dataset.h5`; each FOLDER holds frozen_graph.pb and
scaling.json ({"subtract", "divide"}) of one training seed. Accuracy is that of the
integer network on every test image; `agree` is the share of test images with the float
network's class; a row is the mean over the folders of a network. Seconds are wall-clock of
`quantize` on this machine, diagnosis off, the interpreter's start not included.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.files import read_json
from dpuflow.numerics import scale_pixels
from dpuflow.quantize import engine
from dpuflow.quantize.reference import predict, quantize
from dpuflow.quantize.search import logits_name
from dpuflow.tfgraph.graph_reader import read_network

PLAIN = {"equalization": False, "position_search": {"criterion": None}, "fast_finetune": False}
METHODS = {
    "vai_q": {"compat": "vai_q"},
    "non_overflow": {**PLAIN, "method": "non_overflow"},
    "min_diffs": PLAIN,
    "min_diffs + equalization": {**PLAIN, "equalization": True},
    "+ output_error": {"fast_finetune": False},
    "+ logit_error": {"fast_finetune": False, "position_search": {"criterion": "logit_error"}},
    "+ output_error + bias_correction": {"fast_finetune": False, "bias_correction": True},
    "default (+ fast_finetune)": {},
}


def float_classes(path, images, scaling):
    """Class of every image by the float network, (N,)."""
    network = read_network(path)
    name = logits_name(network)
    x = scale_pixels(images, scaling)
    with engine.single_threaded_blas():
        return np.concatenate(
            [engine.run_float(network, x[i : i + 64], [name])[name].argmax(1) for i in range(0, len(x), 64)]
        )


def measure(folder, dataset, settings, count, float_answers):
    """(float accuracy, int8 accuracy, agreement, seconds) of one trained network.

    float_answers : {folder: classes}, filled here: they are the same for every method.
    """
    folder = Path(folder)
    scaling = read_json(folder / "scaling.json")
    test, labels = dataset.subset("test")
    calibration, _ = dataset.subset("calibration")
    graph = folder / "frozen_graph.pb"
    if folder not in float_answers:
        float_answers[folder] = float_classes(graph, test, scaling)
    start = time.perf_counter()
    quantized, _ = quantize(graph, calibration[:count], {**settings, "diagnosis": False}, scaling)
    seconds = time.perf_counter() - start
    classes = predict(quantized, test).argmax(1)
    return (
        (float_answers[folder] == labels).mean(),
        (classes == labels).mean(),
        (classes == float_answers[folder]).mean(),
        seconds,
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset")
    parser.add_argument("networks", nargs="+", metavar="NETWORK=FOLDER,...")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--images", type=int, help="calibration images (default: the whole split)")
    options = parser.parse_args()
    dataset, float_answers = read_dataset(options.dataset), {}
    print("| network | method | float % | int8 % | drop, points | agree | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for entry in options.networks:
        name, _, folders = entry.partition("=")
        for method in options.methods.split(","):
            rows = [
                measure(f, dataset, METHODS[method], options.images, float_answers)
                for f in folders.split(",")
            ]
            real, integer, agree, seconds = np.mean(rows, axis=0)
            print(
                f"| {name} ({len(rows)}) | {method} | {100 * real:.3f} | {100 * integer:.3f} "
                f"| {100 * (real - integer):+.3f} | {agree:.5f} | {seconds:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
