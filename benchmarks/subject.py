"""Which data and which trained network the benchmarks measure.

The real Sign Language MNIST if its results are there (`run_all.py` makes them when it finds the
data), else what `make run` makes of the embedded data. Nothing is there for `--quick`: then a
random network and random images do.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from measuring import REPO

CONFIGS = {
    "sign_mnist": ("config/sign_mnist.yaml", "zcu104", "the real Sign Language MNIST"),
    "synthetic_signs": ("config/config.yaml", "kv260", "the embedded, drawn data set"),
}
"""Data set -> its configuration, the target of its run, what it is."""
MODEL = "signnet"


@dataclass(frozen=True)
class Subject:
    """Artifacts of one run of the workflow."""

    dataset: str

    @property
    def title(self):
        """The network and the data, in words."""
        return f"`{MODEL}` on {CONFIGS[self.dataset][2]}"

    @property
    def train_csv(self):
        """The training file, uncompressed."""
        return REPO / "resources" / self.dataset / "train.csv"

    @property
    def dataset_h5(self):
        """Images, labels and splits."""
        return REPO / "results" / self.dataset / "dataset.h5"

    @property
    def model(self):
        """Folder of the trained network."""
        return REPO / "results" / self.dataset / MODEL

    @property
    def xmodel(self):
        """The compiled network."""
        return self.model / "reference" / CONFIGS[self.dataset][1] / f"{MODEL}.xmodel"

    @property
    def goal(self):
        """The last file of the run: Snakemake's target."""
        return self.xmodel.parent / "emulator" / "board_accuracy.json"


def find():
    """The Subject whose artifacts are there; exits with what to do if none is."""
    for dataset in CONFIGS:
        subject = Subject(dataset)
        if subject.goal.exists():
            return subject
    sys.exit("nothing to measure: no results of a run; `make bench` makes them, or give --quick")


def random_frozen_graph(path, widths=(8, 8), hidden=None, classes=25):
    """Write a frozen graph with random weights for 28 x 28 grey images: convolutions, dense layers."""
    from dpuflow.base.tensorflow_env import keras, tensorflow

    tf = tensorflow()
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    layers = keras().layers
    keras().utils.set_random_seed(0)
    stack = [layers.InputLayer((28, 28, 1), name="image")]
    for width in widths:
        stack += [layers.Conv2D(width, 3, padding="same", activation="relu"), layers.MaxPool2D()]
    stack += [layers.Flatten()] + ([layers.Dense(hidden, activation="relu")] if hidden else [])
    stack += [layers.Dense(classes, activation="softmax")]
    model = keras().Sequential(stack)
    function = tf.function(model).get_concrete_function(tf.TensorSpec((None, 28, 28, 1), tf.float32))
    graph = convert_variables_to_constants_v2(function).graph.as_graph_def()
    Path(path).write_bytes(graph.SerializeToString())


def random_images(count, seed=1):
    """(uint8 (count, 28, 28, 1), labels (count,)), random."""
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, 28, 28, 1), np.uint8), random.integers(0, 24, count)
