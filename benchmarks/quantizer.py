"""Methods of the reference quantizer against accuracy, agreement and time, as a Markdown table.

    python benchmarks/quantizer.py [DATASET.h5 NETWORK=FOLDER[,FOLDER...] ...] [--methods a,b] [--images N]

DATASET.h5 is `results/{dataset}/dataset.h5`; each FOLDER is one training seed's: a model's folder
of the workflow, or one with frozen_graph.pb and scaling.json ({"subtract", "divide"}). Without
them, the network of the last run. Accuracy is that of the integer network on every test image;
`agree` is the share of test images with the float network's class; a row is the mean over the
folders of a network. Seconds are wall-clock of one `quantize` on this machine, diagnosis off, the
interpreter's start not included. What time and memory depend on: quantizer_cost.py.
"""

import sys
import time
from pathlib import Path

import numpy as np
import subject
from measuring import parser_of, progress, table

from dpuflow.base.files import read_json
from dpuflow.base.pixels import scale_pixels
from dpuflow.base.threads import single_threaded_blas
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.quantize import engine
from dpuflow.quantize.position_search import logits_name
from dpuflow.quantize.reference import predict, quantize
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
    with single_threaded_blas():
        return np.concatenate(
            [engine.run_float(network, x[i : i + 64], [name])[name].argmax(1) for i in range(0, len(x), 64)]
        )


def scaling_of(folder):
    """{"subtract", "divide"} of a folder's network."""
    own = folder / "scaling.json"
    if own.exists():
        return read_json(own)
    return read_json(folder / "reference" / "quantization.json")["input_scaling"]


def measure(folder, dataset, settings, count, float_answers):
    """(float accuracy, int8 accuracy, agreement, seconds) of one trained network.

    float_answers : {folder: classes}, filled here: they are the same for every method.
    """
    folder = Path(folder)
    scaling = scaling_of(folder)
    test, labels = dataset.subset("test")
    calibration, _ = dataset.subset("calibration")
    graph = folder / "frozen_graph.pb"
    if folder not in float_answers:
        float_answers[folder] = float_classes(graph, test, scaling)
    start = time.perf_counter()
    quantized, _ = quantize(
        read_network(graph), calibration[:count], {**settings, "diagnosis": False}, scaling
    )
    seconds = time.perf_counter() - start
    classes = predict(quantized, test).argmax(1)
    return (
        (float_answers[folder] == labels).mean(),
        (classes == labels).mean(),
        (classes == float_answers[folder]).mean(),
        seconds,
    )


def main():
    """Measure and print the section; returns the exit status."""
    parser = parser_of(__doc__, repeats=None)
    parser.add_argument("dataset", nargs="?")
    parser.add_argument("networks", nargs="*", metavar="NETWORK=FOLDER,...")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--images", type=int, help="calibration images (default: the whole split)")
    options = parser.parse_args()
    what = ""
    if options.dataset is None:
        chosen = subject.find()
        options.dataset, options.networks = chosen.dataset_h5, [f"{subject.MODEL}={chosen.model}"]
        what = f"{chosen.title}, one training. "
    dataset, float_answers, lines = read_dataset(options.dataset), {}, []
    for entry in options.networks:
        name, _, folders = entry.partition("=")
        for method in options.methods.split(","):
            progress(f"{name}, {method}")
            rows = [
                measure(f, dataset, METHODS[method], options.images, float_answers)
                for f in folders.split(",")
            ]
            real, integer, agree, seconds = np.mean(rows, axis=0)
            lines.append(
                (
                    f"{name} ({len(rows)})",
                    method,
                    f"{100 * real:.3f}",
                    f"{100 * integer:.3f}",
                    f"{100 * (real - integer):+.3f}",
                    f"{agree:.5f}",
                    f"{seconds:.1f}",
                )
            )
    print("## Methods of the quantizer\n")
    print(
        table(("network (seeds)", "method", "float %", "int8 %", "drop, points", "agree", "seconds"), lines)
    )
    print(f"{what}Every test image; seconds of one call each.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
