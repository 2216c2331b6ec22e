#!/usr/bin/env python3
"""Classify the test images of a dpuflow bundle on a DPU and measure it.

Runs on the board with Python 3.6 or later, numpy, and the image's `xir` and `vart`:

    python3 app.py                  classify all images with two threads
    python3 app.py --query          print what the board is, as JSON, and stop
    python3 app.py --help           all options

It reads the bundle that it lies in (meta.json, model.xmodel, images.npy, labels.npy)
and writes to the folder --out: predictions.csv (one row per image, with the int8 value
of every class) and board.json (accuracy, latency, throughput, what the board is).
"""

import argparse
import csv
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time

from board_info import AppError, query

FORMAT = "dpuflow bundle 1"


# ---- the bundle


def load_bundle(folder, check=True):
    """(meta, images (N, H, W, C) uint8, labels (N,)) of an unpacked bundle."""
    import numpy as np

    try:
        with open(os.path.join(folder, "meta.json"), encoding="utf-8") as stream:
            meta = json.load(stream)
    except (OSError, ValueError) as error:
        raise AppError(f"{folder}: not an unpacked bundle (meta.json: {error})") from None
    if meta.get("format") != FORMAT:
        raise AppError("{}: format {!r}, expected {!r}".format(folder, meta.get("format"), FORMAT))
    if check:
        check_sums(folder)
    images = np.load(os.path.join(folder, meta["images"]["file"]), allow_pickle=False)
    labels = np.load(os.path.join(folder, meta["images"]["labels"]), allow_pickle=False)
    return meta, images, labels


def check_sums(folder):
    """Compare every file with SHA256SUMS."""
    with open(os.path.join(folder, "SHA256SUMS"), encoding="utf-8") as stream:
        lines = stream.read().splitlines()
    for line in lines:
        expected, name = line.split("  ", 1)
        digest = hashlib.sha256()
        try:
            with open(os.path.join(folder, name), "rb") as stream:
                for block in iter(lambda: stream.read(1 << 20), b""):
                    digest.update(block)
        except OSError as error:
            raise AppError(f"{name}: {error}; copy the bundle again") from None
        if digest.hexdigest() != expected:
            raise AppError(f"{name}: checksum differs; copy the bundle again")


# ---- the network


def input_table(subtract, divide, fix_point):
    """int8 value of every uint8 pixel: (pixel - subtract) / divide, halves rounded up.

    The same rounding as the quantizer's; truncating instead would shift every pixel
    and let 255 wrap to -128 at fix_point 7.
    """
    import numpy as np

    pixels = np.arange(256, dtype=np.float64)
    value = ((pixels - subtract) / divide).astype(np.float32).astype(np.float64)
    scaled = np.ldexp(value, fix_point)
    floor = np.floor(scaled)
    rounded = floor + (scaled - floor >= 0.5)
    return np.clip(rounded, -128, 127).astype(np.int8)


def dpu_subgraph(graph):
    """The one subgraph that runs on the DPU."""
    children = graph.get_root_subgraph().toposort_child_subgraph()
    found = [s for s in children if s.has_attr("device") and s.get_attr("device").upper() == "DPU"]
    if len(found) != 1:
        names = ", ".join(s.get_name() for s in found) or "none"
        raise AppError(
            f"this application runs models with one DPU subgraph, this one has {len(found)} ({names}); "
            "an operation in between that the DPU cannot run splits the network"
        )
    return found[0]


def check_tensors(meta, runner):
    """(input tensor, output tensor) of a runner after comparing them with the bundle."""
    inputs, outputs = runner.get_input_tensors(), runner.get_output_tensors()
    if len(inputs) != 1 or len(outputs) != 1:
        raise AppError(f"expected one input and one output, got {len(inputs)} and {len(outputs)}")
    tensor, result = inputs[0], outputs[0]
    if list(tensor.dims[1:]) != list(meta["input"]["shape"]):
        raise AppError(
            "model input is {}, images are {}".format(list(tensor.dims[1:]), meta["input"]["shape"])
        )
    for name, found, told in (
        ("input", tensor.get_attr("fix_point"), meta["input"]["fix_point"]),
        ("output", result.get_attr("fix_point"), meta["output"]["fix_point"]),
    ):
        if found != told:
            raise AppError(f"{name} fix_point is {found} in the model and {told} in meta.json")
    return tensor, result


class Work:
    """Hands out batches to threads and gathers results."""

    def __init__(self, total, step):
        self.total, self.step, self.next, self.lock = total, step, 0, threading.Lock()
        self.error = None

    def take(self):
        """(start, stop) of the next images, or None at the end or after an error."""
        with self.lock:
            if self.error is not None or self.next >= self.total:
                return None
            start = self.next
            self.next = min(self.total, start + self.step)
            return start, self.next


def classify(runner, work, images, table, logits, seconds):
    """One thread: take batches, quantize, run, store int8 results and seconds per image."""
    import numpy as np

    tensor, result = runner.get_input_tensors()[0], runner.get_output_tensors()[0]
    at_once = tensor.dims[0]
    feed = np.zeros(tuple(tensor.dims), dtype=np.int8, order="C")
    answer = np.zeros(tuple(result.dims), dtype=np.int8, order="C")
    try:
        while True:
            span = work.take()
            if span is None:
                return
            for start in range(span[0], span[1], at_once):
                stop = min(start + at_once, span[1])
                begin = time.perf_counter()
                # a last, smaller batch leaves old images in the rest of the buffer; they are not read
                np.take(table, images[start:stop], out=feed[: stop - start], mode="clip")
                runner.wait(runner.execute_async([feed], [answer]))
                logits[start:stop] = answer[: stop - start].reshape(stop - start, -1)
                seconds[start:stop] = time.perf_counter() - begin
    except Exception as error:
        work.error = error


def run_once(runners, images, table, logits, seconds, batch, progress=None):
    """Classify all images with one thread per runner; return the seconds it took."""
    work = Work(len(images), batch)
    threads = [
        threading.Thread(target=classify, args=(runner, work, images, table, logits, seconds), daemon=True)
        for runner in runners
    ]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(1.0 if progress else None)
            if progress:
                progress(work.next)
    took = time.perf_counter() - begin
    if work.error is not None:
        raise work.error
    return took


# ---- results


def softmax(logits, fix_point):
    """(N, C) float64 probabilities of int8 values; this part of the network is the CPU's."""
    import numpy as np

    real = np.ldexp(logits.astype(np.float64), -fix_point)
    power = np.exp(real - real.max(axis=1, keepdims=True))
    return power / power.sum(axis=1, keepdims=True)


def write_atomically(path, text):
    """Write a file under a temporary name, then rename it."""
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w", encoding="utf-8", newline="\n") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def predictions_csv(labels, logits, names, fix_point):
    """Text of predictions.csv: one row per image; score is the probability, q_CLASS the int8 outputs."""
    predicted = logits.argmax(axis=1)  # the first of equal values
    top = softmax(logits, fix_point)[range(len(logits)), predicted]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = ["index", "label", "prediction", "label_name", "prediction_name", "score"]
    writer.writerow(columns + ["q_" + name for name in names])
    for index, values in enumerate(logits.tolist()):
        label, prediction = int(labels[index]), int(predicted[index])
        row = [index, label, prediction, names[label], names[prediction], f"{top[index]:.6g}"]
        writer.writerow(row + values)
    return text.getvalue()


def percentiles(seconds):
    """Milliseconds at the usual percentiles."""
    import numpy as np

    values = np.percentile(np.asarray(seconds) * 1e3, [50, 90, 95, 99, 100])
    names = ("p50", "p90", "p95", "p99", "max")
    return {name: round(float(value), 4) for name, value in zip(names, values)}  # noqa: B905 (Python 3.6)


def measure(options, meta, images, labels, progress):
    """Load the model, run it, return (logits of the first run, the dict of board.json)."""
    import numpy as np
    import vart
    import xir

    board = query()
    graph = xir.Graph.deserialize(os.path.join(options.bundle, meta["model"]))
    subgraph = dpu_subgraph(graph)
    model = subgraph.get_attr("dpu_fingerprint") if subgraph.has_attr("dpu_fingerprint") else 0
    if board["fingerprint"] and model and int(board["fingerprint"], 16) != model:
        raise AppError(
            f"the board's DPU has fingerprint {board['fingerprint']}, the model was compiled for "
            f"{hex(model)}; compile it for this board's release and DPU"
        )
    runners = [vart.Runner.create_runner(subgraph, options.mode) for _ in range(options.threads)]
    tensor, result = check_tensors(meta, runners[0])
    table = input_table(meta["input"]["subtract"], meta["input"]["divide"], tensor.get_attr("fix_point"))
    shape = (len(images), int(np.prod(result.dims[1:])))
    if shape[1] != len(meta["class_names"]):
        raise AppError(f"the model has {shape[1]} outputs for {len(meta['class_names'])} class names")
    batch = max(options.batch, tensor.dims[0])
    spare = np.zeros(shape, np.int8), np.zeros(len(images))
    if options.warmup:
        count = min(options.warmup, len(images))
        run_once(runners, images[:count], table, spare[0][:count], spare[1][:count], batch)
    logits, latency, rates, unstable = None, [], [], set()
    for run in range(options.runs):
        found, seconds = np.zeros(shape, np.int8), np.zeros(len(images))
        took = run_once(
            runners, images, table, found, seconds, batch, lambda n, run=run: progress(run, n, len(images))
        )
        rates.append(len(images) / took)
        latency.append(seconds)
        if logits is None:
            logits = found
        unstable.update(np.flatnonzero((found != logits).any(axis=1)).tolist())
    correct = int((logits.argmax(axis=1) == labels).sum())
    report = {
        "format": "dpuflow board run 1",
        "target": meta["target"],
        "model_fingerprint": hex(model),
        "board": board,
        "emulated": board["emulated"],
        "images": len(images),
        "correct": correct,
        "accuracy": correct / float(len(images)),
        "threads": options.threads,
        "batch": batch,
        "images_per_call": int(tensor.dims[0]),
        "runs": options.runs,
        "warmup": options.warmup,
        "unstable_images": sorted(unstable),
        "timing": {
            "kind": "emulated on a PC: says nothing about a board" if board["emulated"] else "measured",
            "covers": "quantizing the input, the DPU, copying (latency: one call; throughput: a run)",
            "latency_ms": percentiles(np.concatenate(latency)),
            "images_per_second": {
                "median": round(float(np.median(rates)), 2),
                "runs": [round(rate, 2) for rate in rates],
            },
        },
    }
    return logits, report


def dump_tensors(options, meta, images, index):
    """Run image `index` in a second process with the runtime's dump switched on.

    The runtime writes dump/SUBGRAPH/{input,internal,output}/ENGINE.TENSOR.bin below
    its working directory, for tensors that lie in DDR.
    """
    folder = os.path.join(options.out, "dump")
    shutil.rmtree(folder, ignore_errors=True)
    environment = dict(os.environ, XLNX_ENABLE_DUMP="1")
    command = [sys.executable, os.path.abspath(__file__), "--bundle", options.bundle, "--mode", options.mode]
    subprocess.check_call(command + ["--dump-image", str(index)], cwd=options.out, env=environment)
    return os.path.isdir(folder)


def run_one(options, meta, images):
    """The second process of `dump_tensors`."""
    import numpy as np
    import vart
    import xir

    graph = xir.Graph.deserialize(os.path.join(options.bundle, meta["model"]))
    runner = vart.Runner.create_runner(dpu_subgraph(graph), options.mode)
    tensor, result = check_tensors(meta, runner)
    table = input_table(meta["input"]["subtract"], meta["input"]["divide"], meta["input"]["fix_point"])
    answer = np.zeros((1, int(np.prod(result.dims[1:]))), np.int8)
    one = images[options.dump_image : options.dump_image + 1]
    run_once([runner], one, table, answer, np.zeros(1), tensor.dims[0])


# ---- command line


class Status:
    """status.json for whoever polls: state, images done, error."""

    def __init__(self, path):
        self.path, self.last = path, 0.0

    def write(self, state, **more):
        if self.path:
            write_atomically(self.path, json.dumps(dict(more, state=state, pid=os.getpid())) + "\n")

    def progress(self, run, done, total):
        if time.time() - self.last >= 1.0:
            self.last = time.time()
            self.write("running", run=run, done=done, total=total)


def arguments(words=None):
    """Parsed options."""
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description="Classify the bundle's test images on the DPU.")
    parser.add_argument("--bundle", default=here, help="folder of the unpacked bundle (default: this file's)")
    parser.add_argument("--out", default="results", help="folder for predictions.csv and board.json")
    parser.add_argument("--threads", type=int, default=2, help="threads, each with a runner of its own")
    parser.add_argument("--batch", type=int, default=1, help="images that a thread takes at a time")
    parser.add_argument("--limit", type=int, default=0, help="only the first N images (0: all)")
    parser.add_argument("--warmup", type=int, default=16, help="images to run before measuring")
    parser.add_argument("--runs", type=int, default=3, help="how often to run all images")
    parser.add_argument("--mode", default="run", help="runner of the model: run, sim or ref")
    parser.add_argument(
        "--dump", type=int, nargs="?", const=0, metavar="INDEX", help="also dump an image's tensors"
    )
    parser.add_argument("--dump-image", type=int, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--status", default=None, help="file to report progress in")
    parser.add_argument("--query", action="store_true", help="print what the board is and stop")
    options = parser.parse_args(words)
    for name, least in (("threads", 1), ("batch", 1), ("limit", 0), ("warmup", 0), ("runs", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name} must be at least {least}")
    options.bundle, options.out = os.path.abspath(options.bundle), os.path.abspath(options.out)
    return options


def main(options, status):
    """Run as the options say."""
    if options.query:
        print(json.dumps(query(), indent=1, sort_keys=True))
        return
    meta, images, labels = load_bundle(options.bundle)
    if options.dump_image is not None:
        run_one(options, meta, images)
        return
    if options.limit:
        images, labels = images[: options.limit], labels[: options.limit]
    os.makedirs(options.out, exist_ok=True)
    logits, report = measure(options, meta, images, labels, status.progress)
    if options.dump is not None:
        index = min(options.dump, len(images) - 1)
        report["dump"] = {"image": index} if dump_tensors(options, meta, images, index) else None
    text = predictions_csv(labels, logits, meta["class_names"], meta["output"]["fix_point"])
    write_atomically(os.path.join(options.out, "predictions.csv"), text)
    text = json.dumps(report, indent=1, sort_keys=True) + "\n"
    write_atomically(os.path.join(options.out, "board.json"), text)
    timing = report["timing"]
    rate, latency = timing["images_per_second"]["median"], timing["latency_ms"]["p50"]
    print(f"{report['correct']} of {report['images']} images right ({report['accuracy']:.4f})")
    print(f"{rate:.1f} images/s, median latency {latency:.3f} ms ({timing['kind']})")


if __name__ == "__main__":
    parsed = arguments()
    report_to = Status(parsed.status)
    try:
        report_to.write("running", run=0, done=0, total=None)
        main(parsed, report_to)
    except AppError as mistake:
        report_to.write("failed", error=str(mistake))
        print(f"error: {mistake}", file=sys.stderr)
        sys.exit(1)
    except Exception as mistake:
        report_to.write("failed", error=f"{type(mistake).__name__}: {mistake}")
        raise
    report_to.write("done")
