"""JPEG files -> a trained epoch: dpuflow against Keras's image_dataset_from_directory.

    python benchmarks/pictures.py [--folder FOLDER] [--count 4000] [--side 224] [--quick]

The folder holds one folder of pictures per class; without it as many random pictures are drawn as
--count says. dpuflow decodes each picture once, into dataset.h5, and trains from that file;
image_dataset_from_directory (batches of 32, shuffled, prefetched) decodes in every epoch. Both train the
same network with the same batch size, each in a process of its own, the graph built before the
clock starts. `reading` leaves the network out: pictures in a new order, as batches.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import Goals, in_child, parser_of, progress, table

BATCH = 32
CLASSES = 10
MEMORY_GOAL = 2048
"""MiB of the whole process."""
LAYERS = [
    {"conv": {"filters": 8, "kernel": 5, "stride": 4, "activation": "relu"}},
    {"conv": {"filters": 16, "stride": 2, "activation": "relu"}},
    {"conv": {"filters": 32, "stride": 2, "activation": "relu"}},
    "global_average_pool",
]
TRAINING = {"optimizer": "adam", "learning_rate": 1e-3, "batch_size": BATCH, "epochs": 1}


def draw(folder, count, side):
    """Write random JPEG files of the classes."""
    from PIL import Image

    random = np.random.default_rng(1)
    for number in range(count):
        place = Path(folder) / f"class{number % CLASSES}" / f"{number:05d}.jpg"
        place.parent.mkdir(exist_ok=True)
        coarse = random.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(place, quality=90)


def build(folder, path, side):
    """Pictures -> dataset.h5; returns the number of training pictures."""
    from dpuflow.datasets.picture_dataset import build_picture_dataset

    entry = {
        "source": {"kind": "pictures", "folder": folder},
        "image": {"height": side, "width": side, "channels": 3},
        "test": {"fraction": 0.01},
        "validation": {"fraction": 0.01},
        "calibration": {"images": CLASSES},
        "duplicates": "allow",
    }
    return build_picture_dataset(path, entry, threads=2)["train"]


def ours(path, part):
    """Seconds of an epoch from dataset.h5; part: "training" or "reading"."""
    from dpuflow.datasets.dataset_file import read_dataset
    from dpuflow.training.image_source import Stretches
    from dpuflow.training.model_builder import build_model
    from dpuflow.training.trainer import Loop, compile_model, seed_everything

    data = read_dataset(path).part("train")
    if part == "reading":
        start = time.perf_counter()
        stretches = Stretches(data, BATCH, 50, seed=1)
        with stretches.opened() as read:
            for _ in stretches.epoch(read, 0, stretches.steps):
                pass
        return time.perf_counter() - start
    seed_everything(1, threads=2)
    model = build_model(LAYERS, data.shape, CLASSES, "small")
    compile_model(model, TRAINING)
    with Loop(model, data, TRAINING, {"subtract": 127.5, "divide": 127.5}, seed=1) as loop:
        loop.run_epoch(0, 2)
        start = time.perf_counter()
        loop.run_epoch(0)
        return time.perf_counter() - start


def keras_way(folder, side, part):
    """Seconds of an epoch by image_dataset_from_directory over all pictures, and how many they are."""
    import os

    os.environ |= {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    import tensorflow as tf
    import tf_keras

    from dpuflow.training.model_builder import build_model
    from dpuflow.training.trainer import compile_model

    data = tf_keras.utils.image_dataset_from_directory(
        folder, image_size=(side, side), batch_size=BATCH, seed=1
    )
    count = len(data.file_paths)
    scaled = data.map(lambda x, y: ((x - 127.5) / 127.5, y)).prefetch(tf.data.AUTOTUNE)
    if part == "reading":
        start = time.perf_counter()
        for _ in data.prefetch(tf.data.AUTOTUNE):
            pass
        return time.perf_counter() - start, count
    model = build_model(LAYERS, (side, side, 3), CLASSES, "small")
    compile_model(model, TRAINING)
    model.fit(scaled.take(2), verbose=0)
    start = time.perf_counter()
    model.fit(scaled, verbose=0)
    return time.perf_counter() - start, count


def main():
    """Parse the command line, measure, print Markdown; returns the exit status."""
    parser = parser_of(__doc__)
    parser.add_argument("--folder", help="folder with one folder of pictures per class")
    parser.add_argument("--count", type=int, default=4000, help="random pictures")
    parser.add_argument("--side", type=int, default=224, help="side of the pictures in pixels")
    options = parser.parse_args()
    if options.quick:
        options.count, options.side = 200, 48
    with tempfile.TemporaryDirectory(prefix="dpuflow-bench-") as scratch:
        folder, path = options.folder, str(Path(scratch) / "dataset.h5")
        if folder is None:
            progress(f"drawing {options.count} pictures")
            folder = Path(scratch) / "pictures"
            folder.mkdir()
            draw(folder, options.count, options.side)
        return show(*measured(str(folder), path, options.side), options)


def measured(folder, path, side):
    """({what: seconds for each picture}, {what: peak MiB}, number of pictures)."""
    once = {"repeats": 1, "warm_up": False}
    progress("dpuflow: dataset.h5")
    made = in_child(build, folder, path, side, **once)
    seconds, memory, count = {}, {"data set": made.peak}, 0
    for part in ("reading", "training"):
        progress(f"{part}: image_dataset_from_directory")
        other = in_child(keras_way, folder, side, part, **once)
        taken, count = other.result
        seconds["Keras", part], memory["Keras", part] = taken / count, other.peak
        progress(f"{part}: dpuflow")
        own = in_child(ours, path, part, **once)
        seconds["dpuflow", part], memory["dpuflow", part] = own.result / made.result, own.peak
    seconds["data set"] = made.seconds[0] / count
    return seconds, memory, count


def show(seconds, memory, count, options):
    """Print the section; returns the exit status."""
    goals = Goals(binding=not options.quick)
    build_time, pixels = seconds["data set"], options.side**2 / 1e6
    rows = []
    for part in ("reading", "training"):
        own, other = seconds["dpuflow", part], seconds["Keras", part]
        rows.append(
            [part, f"{1e3 * other:.2f}", f"{1e3 * own:.2f}", f"{other / own:.2f}"]
            + [f"{other / (own + build_time):.2f}", f"{3 * other / (3 * own + build_time):.2f}"]
            + [f"{pixels / own:.1f}", f"{memory['Keras', part]:.0f}", f"{memory['dpuflow', part]:.0f}"]
        )
    print("## Pictures: from JPEG files to a trained epoch\n")
    headers = ("an epoch", "`image_dataset_from_directory`, ms a picture", "dpuflow, ms", "ratio")
    more = ("with dataset.h5, 1 epoch", "3 epochs", "megapixels/s", "Keras, MiB", "dpuflow, MiB")
    print(table((*headers, *more), rows))
    print(
        f"{count:,} pictures of {options.side} x {options.side} in batches of {BATCH}; dataset.h5: "
        f"{1e3 * build_time:.2f} ms a picture, once, {memory['data set']:.0f} MiB. A ratio above 1: dpuflow "
        "is faster. MiB: greatest memory of the process.\n"
    )
    for part in ("reading", "training"):
        ratio = seconds["Keras", part] / seconds["dpuflow", part]
        goals.add(f"{part} an epoch {ratio:.2f} times as fast as Keras, at least 1", ratio >= 1)
    parts = ("data set", ("dpuflow", "reading"), ("dpuflow", "training"))
    most = max(memory[part] for part in parts)
    goals.add(f"{most:.0f} MiB at most, below {MEMORY_GOAL}", most < MEMORY_GOAL)
    return goals.finish()


if __name__ == "__main__":
    sys.exit(main())
