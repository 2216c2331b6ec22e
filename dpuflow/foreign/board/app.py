#!/usr/bin/env python3
"""Classify the test images of a dpuflow bundle on a DPU and measure it.

Runs on the board with Python 3.6 or later, numpy, and the image's `xir` and `vart`:

    python3 app.py                  classify all images with two threads
    python3 app.py --query          print what the board is, as JSON, and stop
    python3 app.py --help           all options

It reads the bundle that it lies in (meta.json, model.xmodel, parameters.npz, images.npy,
labels.npy), runs the whole network, its DPU layers by the runtime and its CPU layers in
NumPy, and writes to the folder --out: predictions.csv (one row per image, with the int8
value of every class) and board.json (accuracy, latency, throughput, what the board is; of a
network with more outputs than the class, digests and some values of each). A network that finds boxes or
masks (meta.json: task) writes these instead (found.py), and how long making them takes.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time

from board_info import AppError, query

# NumPy, the runtime and what needs them are imported late, so that --query works without


# ---- running


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


class Results:
    """What a run finds: int8 and final outputs (N, classes) of the class, seconds (N, 1 + parts).

    logits and final are None where no output is the class of a picture; `summary` (a named.Summary), where
    there is one, takes every output.
    """

    def __init__(self, count, network, summary=None):
        import numpy as np

        output, self.summary = network.meta.get("output"), summary
        self.logits = None if output is None else np.zeros((count, output["classes"]), np.int8)
        self.final = None if output is None else np.zeros((count, output["classes"]), np.float32)
        self.seconds = np.zeros((count, 1 + len(network.parts)))
        self.finder, self.after = None, np.zeros(count)


def classify(session, work, images, results):
    """One thread: take batches, run the network, store outputs and seconds per image."""
    from named import named_outputs

    meta = session.network.meta
    output = meta.get("output")
    try:
        while True:
            span = work.take()
            if span is None:
                return
            for start in range(span[0], span[1], session.at_once):
                stop = min(start + session.at_once, span[1])
                begin = time.perf_counter()
                values, parts = session.run(images[start:stop])
                if output is not None:
                    results.logits[start:stop] = values[output["value"]].reshape(stop - start, -1)
                    results.final[start:stop] = values[output["final"]].reshape(stop - start, -1)
                results.seconds[start:stop] = [time.perf_counter() - begin] + parts
                if results.summary is not None:
                    results.summary.add(start, named_outputs(meta, values))
                if results.finder is not None:
                    begin = time.perf_counter()
                    results.finder.add(start, values)
                    results.after[start:stop] = (time.perf_counter() - begin) / (stop - start)
    except Exception as error:
        work.error = error


def run_once(sessions, images, results, batch, progress=None):
    """Classify all images with one thread per session; return the seconds it took."""
    work = Work(len(images), batch)
    threads = [
        threading.Thread(target=classify, args=(session, work, images, results), daemon=True)
        for session in sessions
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


def measure(options, bundle, images, labels, progress):
    """Load the model, run it, return (Results of the first run, probabilities, the dict of board.json)."""
    import numpy as np
    from answers import softmax, timing
    from parts import Network, Session

    board, meta = query(), bundle.meta
    network = Network(bundle)
    for model in network.fingerprints:
        if board["fingerprint"] and model and int(board["fingerprint"], 16) != model:
            raise AppError(
                f"the board's DPU has fingerprint {board['fingerprint']}, the model was compiled for "
                f"{hex(model)}; compile it for this board's release and DPU"
            )
    sessions = [Session(network, options.mode) for _ in range(options.threads)]
    batch = max(options.batch, sessions[0].at_once)
    if options.warmup:
        count = min(options.warmup, len(images))
        run_once(sessions, images[:count], Results(count, network), batch)
    summary, unstable = every_output(options, network, sessions, images, batch)
    first, seconds, rates = None, [], []
    for run in range(options.runs):
        found = Results(len(images), network)
        took = run_once(sessions, images, found, batch, lambda n, run=run: progress(run, n, len(images)))
        rates.append(len(images) / took)
        seconds.append(found.seconds)
        first = first or found
        if first.logits is not None:
            unstable.update(np.flatnonzero((found.logits != first.logits).any(axis=1)).tolist())
    report = {
        "format": "dpuflow board run 1",
        "target": meta["target"],
        "model_fingerprint": hex(max(network.fingerprints)),
        "board": board,
        "emulated": board["emulated"],
        "images": len(images),
    }
    probabilities = None
    if first.logits is not None:
        probabilities = first.final
        if not meta["output"]["probabilities"]:
            probabilities = softmax(first.logits, meta["output"]["fix_point"])
        report["correct"] = int((first.logits.argmax(axis=1) == labels).sum())
        report["accuracy"] = report["correct"] / float(len(images))
    report.update(
        {
            "threads": options.threads,
            "batch": batch,
            "images_per_call": int(sessions[0].at_once),
            "runs": options.runs,
            "warmup": options.warmup,
            "unstable_images": sorted(unstable),
            "timing": timing(np.concatenate(seconds), network.parts, rates, board["emulated"]),
        }
    )
    if summary is not None:
        report["outputs"] = summary.record()
    first.finder, found = post_processing(bundle, network, sessions, images, batch)
    if found is not None:
        report["timing"]["post_processing"] = found
    return first, probabilities, report


def post_processing(bundle, network, sessions, images, batch):
    """(found.Boxes or Masks of all images, the dict for board.json), both None where there is none.

    A run of its own, so that the others say what the network alone takes.
    """
    from answers import percentiles
    from found import finder

    finds = finder(bundle, len(images))
    if finds is None:
        return None, None
    results = Results(len(images), network)
    results.finder = finds
    took = run_once(sessions, images, results, batch)
    rate = round(len(images) / took, 2)
    return finds, {"latency_ms": percentiles(results.after), "images_per_second": rate}


def every_output(options, network, sessions, images, batch):
    """(named.Summary of every output of all images, set of the images that a second pass answers otherwise).

    Apart from the runs that are timed, because digests take time. (None, empty set) where the class of an
    image is the only output.
    """
    from named import Summary

    if not network.meta.get("outputs"):
        return None, set()
    passes = []
    for _ in range(min(options.runs, 2)):
        passes.append(Summary(network.meta, len(images)))
        run_once(sessions, images, Results(len(images), network, passes[-1]), batch)
    return passes[0], passes[0].different(passes[-1])


def dump_tensors(options, images, index):
    """Run image `index` in a second process with the runtime's dump switched on.

    The runtime writes dump/SUBGRAPH/{input,internal,output}/ENGINE.TENSOR.bin below
    its working directory, for tensors that lie in DDR; the tensors of CPU layers are
    written beside them, to dump/cpu/0.TENSOR.bin.
    """
    folder = os.path.join(options.out, "dump")
    shutil.rmtree(folder, ignore_errors=True)
    environment = dict(os.environ, XLNX_ENABLE_DUMP="1")
    command = [sys.executable, os.path.abspath(__file__), "--bundle", options.bundle, "--mode", options.mode]
    subprocess.check_call(command + ["--dump-image", str(index)], cwd=options.out, env=environment)
    return os.path.isdir(folder)


def run_one(options, bundle):
    """The second process of `dump_tensors`."""
    import numpy as np
    from parts import Network, Session

    kept = {}
    session = Session(Network(bundle), options.mode)
    session.run(bundle.images[options.dump_image : options.dump_image + 1], kept)
    for name, value in kept.items():
        if value.dtype == np.int8:
            folder = os.path.join("dump", "cpu")
            os.makedirs(folder, exist_ok=True)
            path = os.path.join(folder, "0.{}.bin".format(re.sub(r"[^0-9A-Za-z_]", "_", name)))
            with open(path, "wb") as stream:
                stream.write(np.ascontiguousarray(value[0]).tobytes())


def save_outputs(options, bundle, images):
    """outputs.npz: every output of the network, by its name, for these images."""
    import numpy as np
    from named import named_outputs
    from parts import Network, Session

    network = Network(bundle)
    meta, session, parts = network.meta, Session(network, options.mode), []
    for start in range(0, len(images), session.at_once):
        values, _ = session.run(images[start : start + session.at_once])
        if "outputs" in meta:
            parts.append(named_outputs(meta, values))
        else:
            parts.append(
                {"output": np.array(values[meta["output"]["final"]])}
            )  # a copy: buffers are used again
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    np.savez(os.path.join(options.out, "outputs.npz"), **joined)


# ---- command line


class Status:
    """status.json for whoever polls: state, images done, error."""

    def __init__(self, path):
        self.path, self.last = path, 0.0

    def write(self, state, **more):
        if self.path:
            from answers import write_atomically

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
    parser.add_argument("--save", type=int, default=0, metavar="N", help="also save N images' outputs")
    parser.add_argument("--dump-image", type=int, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--status", default=None, help="file to report progress in")
    parser.add_argument("--query", action="store_true", help="print what the board is and stop")
    options = parser.parse_args(words)
    for name, least in (("threads", 1), ("batch", 1), ("limit", 0), ("warmup", 0), ("runs", 1), ("save", 0)):
        if getattr(options, name) < least:
            parser.error(f"--{name} must be at least {least}")
    options.bundle, options.out = os.path.abspath(options.bundle), os.path.abspath(options.out)
    return options


def main(options, status):
    """Run as the options say."""
    if options.query:
        print(json.dumps(query(), indent=1, sort_keys=True))
        return
    from answers import outputs_csv, predictions_csv, write_atomically
    from bundle_files import Bundle

    bundle = Bundle(options.bundle)
    if options.dump_image is not None:
        run_one(options, bundle)
        return
    images, labels = bundle.images, bundle.labels
    if options.limit:
        images, labels = images[: options.limit], None if labels is None else labels[: options.limit]
    os.makedirs(options.out, exist_ok=True)
    results, probabilities, report = measure(options, bundle, images, labels, status.progress)
    if options.dump is not None:
        index = min(options.dump, len(images) - 1)
        report["dump"] = {"image": index} if dump_tensors(options, images, index) else None
    if options.save:
        save_outputs(options, bundle, images[: options.save])
    if results.finder is not None:
        results.finder.write(options.out)
    else:
        if probabilities is None:
            text = outputs_csv(labels, report["outputs"], bundle.meta["class_names"])
        else:
            text = predictions_csv(labels, results.logits, probabilities, bundle.meta["class_names"])
        write_atomically(os.path.join(options.out, "predictions.csv"), text)
    text = json.dumps(report, indent=1, sort_keys=True) + "\n"
    write_atomically(os.path.join(options.out, "board.json"), text)
    timing = report["timing"]
    rate, latency = timing["images_per_second"]["median"], timing["latency_ms"]["p50"]
    if "accuracy" in report:
        print(f"{report['correct']} of {report['images']} images right ({report['accuracy']:.4f})")
    else:
        print("{} images, outputs {}".format(report["images"], ", ".join(report["outputs"])))
    if "post_processing" in timing:
        print("{:.1f} images/s with boxes or masks".format(timing["post_processing"]["images_per_second"]))
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
