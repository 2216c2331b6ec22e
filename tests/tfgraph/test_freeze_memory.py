"""The job `freeze` of a network of many weights: how often it holds them."""

import subprocess
import sys

PROGRAM = """
import os, sys
import numpy as np
from dpuflow.base.tensorflow_env import keras
from dpuflow.keras_models.keras_file import save_model
from dpuflow.tfgraph.checkpoint import convert
from dpuflow.tfgraph.freeze import compare_with_keras, freeze
from dpuflow.tfgraph.graph_reader import graph_to_network

folder, K = sys.argv[1], keras()

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024

def make():
    images = K.Input((30, 30, 3))
    units = 30_000_000 // 2700
    hidden = K.layers.Dense(units, name="large")(K.layers.Flatten()(images))
    model = K.Model(images, K.layers.Dense(2)(hidden))
    save_model(model, f"{folder}/m.h5")

if sys.argv[2] == "make":
    make()
else:
    start = peak()
    nodes = convert(f"{folder}/m.h5", f"{folder}/tf")
    freeze(f"{folder}/tf", nodes, f"{folder}/f.pb")
    graph_to_network(f"{folder}/f.pb", nodes, "n", f"{folder}/n.h5")
    images = np.random.default_rng(0).integers(0, 256, (4, 30, 30, 3), np.uint8)
    found = compare_with_keras(
        f"{folder}/f.pb", nodes, f"{folder}/m.h5", images, {"subtract": 128, "divide": 128}, 1e-4
    )
    print(found["images_compared"], peak() - start, os.path.getsize(f"{folder}/f.pb") >> 20)
"""


def test_weights_are_held_less_than_five_times(tmp_path):
    """Three times at most, and TensorFlow's own; it was seven and more."""
    for step in ("make", "freeze"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, tmp_path, step], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    images, megabytes, weights = map(int, done.stdout.split())
    assert images == 4 and weights > 110
    assert megabytes < 4.5 * weights
