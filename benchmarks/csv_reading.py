"""CSV -> arrays: dpuflow against numpy.genfromtxt (as the tutorial reads it) and pandas.

    python benchmarks/csv_reading.py [--csv FILE] [--scale 1 10 100] [--repeats 5] [--quick]

Each reading runs in a process of its own, so its peak memory is its own. genfromtxt runs once and
at scale 1 only: it needs minutes and gigabytes beyond. Larger sizes are read once, and beyond 10
times the rows only by what streams. Without --csv and without results of a run, random
images are written to a temporary folder.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import subject
from measuring import Goals, in_child, parser_of, progress, table

GENFROMTXT_GOAL = 20.0
"""Times faster than genfromtxt."""
PANDAS_GOAL = 1.0
FLAT_GOAL = 4.0
"""MiB that streaming the largest file may need more than streaming the smallest."""
COPIES_AT_MOST = 10
"""Scale up to which readers that hold the whole file in memory are measured."""


def read_dpuflow(path):
    """Images and labels as arrays, every field checked."""
    from dpuflow.datasets.image_csv import read_image_csv

    return len(read_image_csv(path)[1])


def stream_dpuflow(path):
    """The same block by block, as build_dataset reads: nothing is kept."""
    from dpuflow.datasets.image_csv import image_blocks

    return sum(len(labels) for _, labels in image_blocks(path))


def read_bytes(path):
    """The bytes alone, lines counted: what no parser can be faster than."""
    with open(path, "rb") as stream:
        return sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 18), b"")) - 1


def read_pandas(path):
    """pandas, told the type, which is faster than letting it guess."""
    import pandas

    table = pandas.read_csv(path, dtype=np.uint8).to_numpy()
    return len(np.ascontiguousarray(table[:, 1:]))


def read_genfromtxt(path):
    """NumPy's text reader on the whole file, header skipped."""
    rows = np.genfromtxt(path, delimiter=",", skip_header=1)
    return len(rows[:, 1:].reshape(len(rows), 28, 28, 1))


READERS = {
    "dpuflow, whole file": read_dpuflow,
    "dpuflow, streamed": stream_dpuflow,
    "pandas": read_pandas,
    "numpy.genfromtxt": read_genfromtxt,
    "the bytes alone": read_bytes,
}
STREAMS = ("dpuflow, streamed", "the bytes alone")


def write_scaled(source, target, scale):
    """`target` holds the rows of `source` `scale` times."""
    header, rows = Path(source).read_bytes().split(b"\n", 1)
    with open(target, "wb") as stream:
        stream.write(header + b"\n")
        for _ in range(scale):
            stream.write(rows)


def compare(source, scales, repeats, folder):
    """{(reader, scale): Measured} and {scale: bytes}."""
    found, sizes = {}, {}
    for scale in scales:
        path = Path(folder) / "scaled.csv"
        write_scaled(source, path, scale)
        sizes[scale] = path.stat().st_size
        for name, reader in READERS.items():
            once = name == "numpy.genfromtxt"
            if scale > (1 if once else scale if name in STREAMS else COPIES_AT_MOST):
                continue
            progress(f"{name}, {scale} x")
            rounds = repeats if scale == 1 else min(repeats, 3) if scale <= COPIES_AT_MOST else 1
            imports = ("pandas",) if name == "pandas" else ("dpuflow.datasets.image_csv",)
            rounds = 1 if once else rounds
            found[name, scale] = in_child(
                reader, str(path), repeats=rounds, warm_up=rounds > 1, imports=imports
            )
    return found, sizes


def main():
    """Parse the command line, measure, print the section; returns the exit status."""
    parser = parser_of(__doc__)
    parser.add_argument("--csv", help="file to read (default: the training file of the run)")
    parser.add_argument("--rows", type=int, default=27455, help="rows of the random file")
    parser.add_argument("--scale", type=int, nargs="+", default=[1, 10, 100], help="times the rows")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.scale, options.repeats = 300, [1, 3], 1
    with tempfile.TemporaryDirectory(prefix="dpuflow-bench-") as folder:
        source, what = options.csv, options.csv
        if source is None and not options.quick:
            chosen = subject.find()
            source, what = chosen.train_csv, f"the training file of {subject.CONFIGS[chosen.dataset][2]}"
        if source is None:
            from dpuflow.datasets.image_csv import write_image_csv

            source, what = Path(folder) / "source.csv", "random images"
            write_image_csv(source, *subject.random_images(options.rows))
        found, sizes = compare(source, options.scale, options.repeats, folder)
    return show(found, sizes, what, options)


def show(found, sizes, what, options):
    """Print the section; returns the exit status."""
    print("## Reading CSV\n")
    ours = {scale: found["dpuflow, whole file", scale] for _, scale in found if scale <= COPIES_AT_MOST}
    rows = [
        (
            name,
            f"{one.result:,}",
            f"{one.median:.3f}",
            f"{sizes[scale] / one.median / 1e6:.0f}",
            f"{one.median / ours[scale].median:.1f}" if scale in ours else "",
            f"{one.grown:.0f}",
        )
        for (name, scale), one in found.items()
    ]
    headers = ("reader", "rows", "seconds", "MB/s", "time relative to dpuflow", "peak memory growth, MiB")
    print(table(headers, rows))
    least, most = min(options.scale), max(options.scale)
    print(
        f"{what[0].upper() + what[1:]}, its rows repeated for the larger sizes. Each reading in a process "
        f"of its own: median of {options.repeats} after a warm-up; genfromtxt and larger sizes once. Only "
        "dpuflow checks every field. Memory is what came on top of the imports.\n"
    )
    goals = Goals(not options.quick)
    first = found["dpuflow, whole file", least].median
    slow = found["numpy.genfromtxt", 1].median / first
    pandas = found["pandas", least].median / first
    flat = found["dpuflow, streamed", most].grown - found["dpuflow, streamed", least].grown
    goals.add(f"{slow:.0f} x as fast as genfromtxt (goal {GENFROMTXT_GOAL:.0f})", slow >= GENFROMTXT_GOAL)
    goals.add(f"{pandas:.1f} x as fast as pandas (goal {PANDAS_GOAL:.0f})", pandas >= PANDAS_GOAL)
    goals.add(
        f"streamed, {most} x the rows take {flat:.1f} MiB more memory (goal: at most {FLAT_GOAL:.0f})",
        flat <= FLAT_GOAL,
    )
    return goals.finish()


if __name__ == "__main__":
    sys.exit(main())
