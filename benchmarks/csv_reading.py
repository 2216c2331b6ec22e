"""CSV -> arrays: dpuflow against numpy.genfromtxt (as the tutorial reads it) and pandas.

    python benchmarks/csv_reading.py [--csv FILE] [--rows N] [--repeats 5] [--scale 1 10]

Each reading runs in a process of its own, so its peak memory is its own. Reported are
the median seconds of the repeats (after one warm-up), the ratio to dpuflow in the same
run, and the greatest resident memory above that of a process that has only imported the
library. genfromtxt runs once and at scale 1 only: it needs minutes and gigabytes beyond.
Without --csv, N rows of random 28x28 images are written to a temporary folder.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def read_dpuflow(path):
    """Images and labels as arrays, every field checked."""
    from dpuflow.datasets.image_csv import read_image_csv

    return len(read_image_csv(path)[1])


def stream_dpuflow(path):
    """The same block by block, as build_dataset does: nothing is kept."""
    from dpuflow.datasets.image_csv import image_blocks

    return sum(len(labels) for _, labels in image_blocks(path))


def read_pandas(path):
    """pandas, told the type, which is faster than letting it guess."""
    import pandas

    table = pandas.read_csv(path, dtype=np.uint8).to_numpy()
    return len(np.ascontiguousarray(table[:, 1:]))


def read_genfromtxt(path):
    """NumPy's text reader on the whole file, header skipped."""
    table = np.genfromtxt(path, delimiter=",", skip_header=1)
    return len(table[:, 1:].reshape(-1, 28, 28, 1))


READERS = {
    "dpuflow": read_dpuflow,
    "dpuflow, streamed": stream_dpuflow,
    "pandas": read_pandas,
    "numpy.genfromtxt": read_genfromtxt,
}


def peak_kib():
    """Greatest resident memory of this process so far, KiB.

    Linux hands ru_maxrss down through exec, so the parent's size would count; VmHWM
    starts anew.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure_here(reader, path, repeats):
    """In this process: seconds of each repeat, rows, and peak memory growth in MiB."""
    from dpuflow.datasets import image_csv  # noqa: F401

    if reader == "pandas":
        import pandas  # noqa: F401
    before = peak_kib()
    seconds = []
    for _ in range(repeats + (repeats > 1)):
        start = time.perf_counter()
        rows = READERS[reader](path)
        seconds.append(time.perf_counter() - start)
    grown = peak_kib() - before
    return {"seconds": seconds[-repeats:], "rows": rows, "mib": grown / 1024}


def measure(reader, path, repeats):
    """`measure_here` in a new process."""
    command = [sys.executable, __file__, "--child", reader]
    command += ["--csv", str(path), "--repeats", str(repeats)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def write_scaled(source, target, scale):
    """`target` holds the rows of `source` `scale` times."""
    header, rows = Path(source).read_bytes().split(b"\n", 1)
    with open(target, "wb") as stream:
        stream.write(header + b"\n")
        for _ in range(scale):
            stream.write(rows)


def compare(source, scales, repeats, folder):
    """Rows of the result table: reader, scale, rows, seconds, ratio to dpuflow, MiB."""
    table = []
    for scale in scales:
        path = Path(folder) / "scaled.csv"
        write_scaled(source, path, scale)
        ours = None
        for reader in READERS:
            if reader == "numpy.genfromtxt" and scale > 1:
                continue
            result = measure(reader, path, 1 if reader == "numpy.genfromtxt" else repeats)
            seconds = statistics.median(result["seconds"])
            ours = ours or seconds
            table.append((reader, scale, result["rows"], seconds, seconds / ours, result["mib"]))
    return table


def main():
    """Parse the command line, measure, print a Markdown table."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--csv", help="file to read (default: random images)")
    parser.add_argument("--rows", type=int, default=27455, help="rows of the random file")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scale", type=int, nargs="+", default=[1, 10], help="times the rows")
    parser.add_argument("--child", choices=READERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure_here(arguments.child, arguments.csv, arguments.repeats)))
        return
    with tempfile.TemporaryDirectory(prefix="dpuflow-bench-") as folder:
        source = arguments.csv
        if source is None:
            from dpuflow.datasets.image_csv import write_image_csv

            source = Path(folder) / "source.csv"
            random = np.random.default_rng(1)
            images = random.integers(0, 256, (arguments.rows, 28, 28, 1), dtype=np.uint8)
            write_image_csv(source, images, random.integers(0, 9, arguments.rows))
        print("| reader | rows | seconds | time relative to dpuflow | peak memory growth, MiB |")
        print("| --- | ---: | ---: | ---: | ---: |")
        table = compare(source, arguments.scale, arguments.repeats, folder)
        for reader, _, rows, seconds, ratio, mib in table:
            print(f"| {reader} | {rows:,} | {seconds:.3f} | {ratio:.1f} | {mib:.0f} |")


if __name__ == "__main__":
    main()
