"""What the application writes: predictions.csv, and figures of board.json.

Python 3.6 or later; part of a dpuflow bundle, next to app.py.
"""

import csv
import io
import os

import numpy as np


def softmax(logits, fix_point):
    """(N, C) float64 probabilities of int8 values, for a model without a softmax of its own."""
    real = np.ldexp(logits.astype(np.float64), -fix_point)
    power = np.exp(real - real.max(axis=1, keepdims=True))
    return power / power.sum(axis=1, keepdims=True)


def predictions_csv(labels, logits, probabilities, names):
    """Text of predictions.csv: one row per image; score is the probability, q_CLASS the int8 outputs."""
    predicted = logits.argmax(axis=1)  # the first of equal values
    top = probabilities[range(len(logits)), predicted]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = ["index", "label", "prediction", "label_name", "prediction_name", "score"]
    writer.writerow(columns + ["q_" + name for name in names])
    for index, values in enumerate(logits.tolist()):
        label, prediction = int(labels[index]), int(predicted[index])
        row = [index, label, prediction, names[label], names[prediction], f"{top[index]:.6g}"]
        writer.writerow(row + values)
    return text.getvalue()


def outputs_csv(labels, outputs, names):
    """Text of predictions.csv where no output is the class: one row per image, its outputs' digests."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "label", "label_name"] + ["sha256 of " + name for name in outputs])
    for index, label in enumerate(labels.tolist()):
        digests = [output["digests"][index] for output in outputs.values()]
        writer.writerow([index, label, names[label]] + digests)
    return text.getvalue()


def write_atomically(path, text):
    """Write a file under a temporary name, then rename it."""
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w", encoding="utf-8", newline="\n") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def percentiles(seconds):
    """Milliseconds at the usual percentiles."""
    values = np.percentile(np.asarray(seconds) * 1e3, [50, 90, 95, 99, 100])
    names = ("p50", "p90", "p95", "p99", "max")
    return {name: round(float(value), 4) for name, value in zip(names, values)}  # noqa: B905 (Python 3.6)


def timing(seconds, parts, rates, emulated):
    """The dict `timing` of board.json.

    seconds (runs * N, 1 + parts): of each call as a whole, and of each part; rates: images/s of each run.
    """
    devices = {}
    for index, part in enumerate(parts):
        devices.setdefault(part["device"], []).append(1 + index)
    return {
        "kind": "emulated on a PC: says nothing about a board" if emulated else "measured",
        "covers": "quantizing the input, all layers on the DPU and on the CPU, copying "
        "(latency: one call; throughput: a run)",
        "latency_ms": percentiles(seconds[:, 0]),
        "latency_by_device_ms": {
            device: percentiles(seconds[:, columns].sum(axis=1))
            for device, columns in sorted(devices.items())
        },
        "parts": [
            {
                "subgraph": part["subgraph"],
                "device": part["device"],
                "median_ms": round(float(np.median(seconds[:, 1 + index])) * 1e3, 4),
            }
            for index, part in enumerate(parts)
        ],
        "images_per_second": {
            "median": round(float(np.median(rates)), 2),
            "runs": [round(rate, 2) for rate in rates],
        },
    }
