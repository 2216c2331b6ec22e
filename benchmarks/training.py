"""Training step and epoch: dpuflow against a plain `model.fit` of the same network.

    python benchmarks/training.py [--networks signnet optimal baseline] [--steps 50] [--repeats 5] [--quick]

Both train the networks of config/config.yaml with the batch sizes written there, each in a
process of its own. `model.fit` gets float32 NumPy arrays, scaled beforehand, and TensorFlow's
default settings; its augmentation is that of Keras's own layers in front of the network
(RandomRotation, RandomZoom, RandomTranslation, RandomBrightness, RandomContrast; they have no
shear). dpuflow trains with its settings: uint8 images in memory, scaled and augmented in the
graph, deterministic kernels. A step is the mean over a call of --steps steps, median of the
repeats after one warm-up call that builds the graph; an epoch runs over all training images.
"""

import functools
import sys
import time

import numpy as np
import subject
import yaml
from measuring import REPO, Goals, in_child, parser_of, progress, table

NETWORKS = ("signnet", "optimal", "baseline")


@functools.cache
def training_images(count):
    """(uint8 images, labels, number of classes) of the Subject; random ones if `count` is given."""
    if count:
        return *subject.random_images(count), 25
    from dpuflow.datasets.dataset_file import read_dataset

    data = read_dataset(subject.find().dataset_h5)
    return *data.subset("train"), len(data.class_names)


def entry_of(network, augmented):
    """The network's entry in config/config.yaml; without augmentation unless `augmented`."""
    entry = yaml.safe_load((REPO / "config" / "config.yaml").read_text())["models"][network]
    if not augmented:
        entry["training"].pop("augmentation", None)
    return entry


@functools.cache
def ours(network, augmented, count):
    """Function (steps or None for an epoch) that trains with dpuflow; its own compiled graph."""
    from dpuflow.training.model_builder import build_model
    from dpuflow.training.trainer import Loop, compile_model, seed_everything

    images, labels, classes = training_images(count)
    entry = entry_of(network, augmented)
    seed_everything(1, threads=2)
    model = build_model(entry["layers"], images.shape[1:], classes, network)
    compile_model(model, entry["training"])
    loop = Loop(model, (images, labels), entry["training"], entry["input"], seed=1)
    return lambda steps=None: loop.run_epoch(0, steps)


@functools.cache
def plain(network, augmented, count):
    """Function (steps or None for an epoch) that trains with `model.fit`."""
    import os

    os.environ |= {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    import tf_keras
    from tensorflow.python.framework.config import disable_op_determinism

    from dpuflow.training.model_builder import build_model
    from dpuflow.training.trainer import compile_model

    images, labels, classes = training_images(count)
    entry = entry_of(network, augmented)
    batch = entry["training"]["batch_size"]
    x = (images.astype(np.float32) - entry["input"]["subtract"]) / np.float32(entry["input"]["divide"])
    y = labels.astype(np.int32)
    model = build_model(entry["layers"], images.shape[1:], classes, network)
    if augmented:
        model = tf_keras.Sequential([*keras_augmentation(entry["training"]["augmentation"]), model])
    compile_model(model, entry["training"])
    disable_op_determinism()  # dpuflow's builder asked for it; a user's script does not

    def fit(steps=None):
        rows = len(x) if steps is None else min(len(x), steps * batch)
        model.fit(x[:rows], y[:rows], batch_size=batch, epochs=1, verbose=0)

    return fit


def keras_augmentation(options):
    """Keras's own augmentation layers with the half-widths of `options`, on inputs in [-1, 1]."""
    from tf_keras import layers

    return [
        layers.RandomRotation(options["rotation"] / 360, fill_mode="nearest"),
        layers.RandomZoom(options["zoom"], options["zoom"], fill_mode="nearest"),
        layers.RandomTranslation(options["shift"], options["shift"], fill_mode="nearest"),
        layers.RandomBrightness(options["brightness"], value_range=(-1, 1)),
        layers.RandomContrast(options["contrast"]),
    ]


CONTENDERS = {"dpuflow": ours, "model.fit": plain}


def run(contender, network, augmented, count, steps):
    """One call: `steps` steps, or an epoch if None."""
    CONTENDERS[contender](network, augmented, count)(steps)


def run_and_epoch(contender, network, augmented, count, steps, repeats):
    """(median seconds of a step, seconds of an epoch), measured in this process."""
    run(contender, network, augmented, count, steps)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run(contender, network, augmented, count, steps)
        seconds.append((time.perf_counter() - start) / steps)
    start = time.perf_counter()
    run(contender, network, augmented, count, None)
    return float(np.median(seconds)), time.perf_counter() - start


def main():
    """Parse the command line, measure, print Markdown; returns the exit status."""
    parser = parser_of(__doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--steps", type=int, default=50, help="training steps per call")
    options = parser.parse_args()
    count, steps, repeats = (512, 2, 1) if options.quick else (None, options.steps, options.repeats)
    if not options.quick:
        subject.find()
    goals, rows = Goals(binding=not options.quick), []
    for network in options.networks:
        has_augmentation = bool(entry_of(network, True)["training"].get("augmentation"))
        for augmented in (True, False) if has_augmentation else (False,):
            title = f"`{network}`" + (", augmented" if augmented else "")
            step, epoch = {}, {}
            for contender in CONTENDERS:
                progress(f"{title}: {contender}")
                measured = in_child(
                    run_and_epoch,
                    *(contender, network, augmented, count, steps, repeats),
                    repeats=1,
                    warm_up=False,
                )
                step[contender], epoch[contender] = measured.result
            ratios = [times["model.fit"] / times["dpuflow"] for times in (step, epoch)]
            rows.append(
                [title, entry_of(network, augmented)["training"]["batch_size"]]
                + [f"{1000 * step[name]:.1f}" for name in CONTENDERS]
                + [f"{ratios[0]:.2f}"]
                + [f"{epoch[name]:.1f}" for name in CONTENDERS]
                + [f"{ratios[1]:.2f}"]
            )
            goals.add(
                f"{title}: a step {ratios[0]:.2f} times as fast as `model.fit`'s, at least 1", ratios[0] >= 1
            )
    print("## Training: a step and an epoch\n")
    headers = ("network", "batch", "step, ms", "`model.fit`, ms", "ratio")
    print(table((*headers, "epoch, s", "`model.fit`, s", "ratio"), rows))
    print(
        f"Each in a process of its own; a step: median of {repeats} calls of {steps} steps after a warm-up; "
        "an epoch: one, after them. `model.fit` reads scaled float32 NumPy arrays and is not "
        "deterministic; its augmentation is Keras's own layers.\n"
    )
    return goals.finish()


if __name__ == "__main__":
    sys.exit(main())
