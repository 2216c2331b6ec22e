"""JPEG files -> a trained epoch: dpuflow against Keras's image_dataset_from_directory.

    python benchmarks/pictures.py [--folder FOLDER] [--count 4000] [--side 224] [--quick]

The folder holds one folder of pictures per class; without it as many random pictures are drawn as
--count says. dpuflow decodes each picture once, into dataset.h5, and trains from that file;
image_dataset_from_directory (batches of 32, shuffled, prefetched) decodes in every epoch. Both train the
same network with the same batch size, each in a process of its own, the graph built before the
clock starts. `reading` leaves the network out: pictures in a new order, as batches.
"""

import contextlib
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


class Clock:
    """What passed since it was made: seconds, and seconds of all cores together."""

    def __init__(self):
        self.start = time.perf_counter(), time.process_time()

    def stop(self):
        """(seconds, processor seconds)."""
        return time.perf_counter() - self.start[0], time.process_time() - self.start[1]


def build(folder, path, side):
    """Pictures -> dataset.h5; returns (seconds, processor seconds) and the number of training pictures."""
    from dpuflow.datasets.picture_dataset import build_picture_dataset

    entry = {
        "source": {"kind": "pictures", "folder": folder},
        "image": {"height": side, "width": side, "channels": 3},
        "test": {"fraction": 0.01},
        "validation": {"fraction": 0.01},
        "calibration": {"images": CLASSES},
        "duplicates": "allow",
    }
    clock = Clock()
    count = build_picture_dataset(path, entry, threads=2)["train"]
    return clock.stop(), count


def ours(path, part):
    """(seconds, processor seconds) of an epoch from dataset.h5; part: "training" or "reading"."""
    from dpuflow.datasets.dataset_file import read_dataset
    from dpuflow.training.image_source import Stretches
    from dpuflow.training.model_builder import build_model
    from dpuflow.training.trainer import Loop, compile_model, seed_everything

    data = read_dataset(path).part("train")
    if part == "reading":
        clock = Clock()
        stretches = Stretches(data, BATCH, 50, seed=1)
        with stretches.opened() as read:
            for _ in stretches.epoch(read, 0, stretches.steps):
                pass
        return clock.stop()
    seed_everything(1, threads=2)
    model = build_model(LAYERS, data.shape, CLASSES, "small")
    compile_model(model, TRAINING)
    with Loop(model, data, TRAINING, {"subtract": 127.5, "divide": 127.5}, seed=1) as loop:
        loop.run_epoch(0, 2)
        clock = Clock()
        loop.run_epoch(0)
        return clock.stop()


def keras_way(folder, side, part):
    """The same of an epoch by image_dataset_from_directory over all pictures, and how many they are."""
    import os

    os.environ |= {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    import tensorflow as tf
    import tf_keras

    from dpuflow.training.model_builder import build_model
    from dpuflow.training.trainer import compile_model

    with contextlib.redirect_stdout(sys.stderr):  # it prints what it found
        data = tf_keras.utils.image_dataset_from_directory(
            folder, image_size=(side, side), batch_size=BATCH, seed=1
        )
    count = len(data.file_paths)
    scaled = data.map(lambda x, y: ((x - 127.5) / 127.5, y)).prefetch(tf.data.AUTOTUNE)
    if part == "reading":
        clock = Clock()
        for _ in data.prefetch(tf.data.AUTOTUNE):
            pass
        return clock.stop(), count
    model = build_model(LAYERS, (side, side, 3), CLASSES, "small")
    compile_model(model, TRAINING)
    model.fit(scaled.take(2), verbose=0)
    clock = Clock()
    model.fit(scaled, verbose=0)
    return clock.stop(), count


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
    """({what: (seconds, processor seconds) for each picture}, {what: peak MiB}, number of pictures)."""
    once = {"repeats": 1, "warm_up": False}
    progress("dpuflow: dataset.h5")
    made = in_child(build, folder, path, side, **once)
    taken, trained = made.result
    seconds, memory, count = {}, {"data set": made.peak}, 0
    for part in ("reading", "training"):
        progress(f"{part}: image_dataset_from_directory")
        other = in_child(keras_way, folder, side, part, **once)
        keras_taken, count = other.result
        seconds["Keras", part], memory["Keras", part] = np.array(keras_taken) / count, other.peak
        progress(f"{part}: dpuflow")
        own = in_child(ours, path, part, **once)
        seconds["dpuflow", part], memory["dpuflow", part] = np.array(own.result) / trained, own.peak
    seconds["data set"] = np.array(taken) / count
    return seconds, memory, count


def show(seconds, memory, count, options):
    """Print the section; returns the exit status."""
    goals = Goals(binding=not options.quick)
    made, rows = seconds["data set"], []
    for part in ("reading", "training"):
        own, other = seconds["dpuflow", part], seconds["Keras", part]
        ratios = other / own, other / (own + made), 3 * other / (3 * own + made)
        for clock, unit in enumerate(("seconds", "processor time")):
            rows.append(
                [f"{part}, {unit}", f"{1e3 * other[clock]:.2f}", f"{1e3 * own[clock]:.2f}"]
                + [f"{ratio[clock]:.2f}" for ratio in ratios]
                + [f"{memory['Keras', part]:.0f}", f"{memory['dpuflow', part]:.0f}"]
            )
        text = f"{part} an epoch takes {ratios[0][1]:.2f} times less processor time than Keras, at least 1"
        goals.add(text, ratios[0][1] >= 1)
    print("## Pictures: from JPEG files to a trained epoch\n")
    headers = ("an epoch", "`image_dataset_from_directory`, ms a picture", "dpuflow, ms", "ratio")
    more = ("with dataset.h5, 1 epoch", "3 epochs", "Keras, MiB", "dpuflow, MiB")
    print(table((*headers, *more), rows))
    print(
        f"{count:,} pictures of {options.side} x {options.side} in batches of {BATCH}; dataset.h5, once: "
        f"{1e3 * made[0]:.2f} ms a picture ({1e3 * made[1]:.2f} ms of processor time), "
        f"{memory['data set']:.0f} MiB. A ratio above 1: dpuflow is faster. Processor time is that of all "
        "cores, which a busy machine "
        "changes less. MiB: greatest memory of the process.\n"
    )
    most = max(memory[part] for part in ("data set", ("dpuflow", "reading"), ("dpuflow", "training")))
    goals.add(f"{most:.0f} MiB at most, below {MEMORY_GOAL}", most < MEMORY_GOAL)
    return goals.finish()


if __name__ == "__main__":
    sys.exit(main())
