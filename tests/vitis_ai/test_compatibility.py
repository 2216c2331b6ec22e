"""What the chain writes, read by the TensorFlow releases of the vendor's containers themselves.

The networks have all that the model builder can make: batch norm before and behind the activation, depthwise
convolution, residual, concatenation, every kind of pooling, leaky ReLU and ReLU6, dropout.
"""

import numpy as np
import pytest
from old_tensorflow import run

from dpuflow.base.pixels import scale_pixels
from dpuflow.keras_models.keras_file import load_model, save_model
from dpuflow.keras_models.prediction import predictor
from dpuflow.quantize.reference import quantize, write_artifacts
from dpuflow.tfgraph.checkpoint import convert
from dpuflow.tfgraph.freeze import FrozenGraph, freeze
from dpuflow.tfgraph.graph_reader import read_network
from dpuflow.training.model_builder import build_model
from dpuflow.training.trainer import compile_model, seed_everything
from dpuflow.vitis_ai import programs
from dpuflow.vitis_ai.bundle import write_bundle

pytestmark = pytest.mark.slow

SCALING = {"subtract": 128, "divide": 128}
SHAPE = (16, 16, 3)
NETWORKS = {
    "tutorial": [
        {"conv": {"filters": 6, "activation": "relu", "batch_norm": "after_activation"}},
        {"max_pool": 2},
        {"dropout": 0.4},
        {"conv": {"filters": 8, "padding": "valid", "activation": "relu6", "batch_norm": "after_activation"}},
        {"avg_pool": {"kernel": 3, "stride": 2}},
        "flatten",
        {"dense": {"units": 12, "activation": "leaky_relu", "batch_norm": "before_activation"}},
        {"dropout": 0.4},
    ],
    "residual": [
        {"conv": {"filters": 8, "batch_norm": "before_activation", "activation": "relu"}},
        {
            "residual": {
                "layers": [
                    {"depthwise_conv": {"batch_norm": "before_activation", "activation": "relu"}},
                    {"conv": {"filters": 8, "kernel": 1, "batch_norm": "before_activation"}},
                ]
            }
        },
        {
            "concat": {
                "branches": [
                    [{"conv": {"filters": 4, "stride": 2, "activation": "relu"}}],
                    [{"max_pool": 2}, {"conv": {"filters": 4, "kernel": 1, "activation": "relu"}}],
                ]
            }
        },
        {"avg_pool": 2},
        "global_average_pool",
    ],
}

FROZEN = """
import sys
import numpy as np
import tensorflow as tf
tf1 = tf.compat.v1
source, result, images = sys.argv[1:4]
for path, output in zip(sys.argv[4::2], sys.argv[5::2]):
    definition = tf1.GraphDef()
    definition.ParseFromString(open(path, "rb").read())
    with tf1.Graph().as_default() as graph:
        tf1.import_graph_def(definition, name="")
        with tf1.Session(graph=graph) as session:
            np.save(output, session.run(result + ":0", {source + ":0": np.load(images)}))
print(tf.__version__)
"""

KERAS = """
import sys
import numpy as np
import tensorflow as tf
path, images, output = sys.argv[1:]
model = tf.keras.models.load_model(path)
assert model.optimizer is not None
np.save(output, model.predict(np.load(images), verbose=0))
print(tf.__version__)
"""


@pytest.fixture(scope="module", params=list(NETWORKS))
def chain(request, tmp_path_factory):
    """Keras H5, frozen graph and evaluation graph of a network, and their outputs for 64 images."""
    folder = tmp_path_factory.mktemp(request.param)
    rng = np.random.default_rng(2)
    seed_everything(4)
    model = build_model(NETWORKS[request.param], SHAPE, 5, request.param)
    compile_model(model, {"optimizer": "adam", "learning_rate": 1e-3})
    images = rng.integers(0, 256, (128, *SHAPE), np.uint8)
    x, labels = scale_pixels(images, SCALING), rng.integers(0, 5, 128)
    model.fit(x, labels, batch_size=32, epochs=2, verbose=0)  # batch norm statistics, optimizer state
    save_model(model, folder / "keras_trained_model.h5")
    nodes = convert(folder / "keras_trained_model.h5", folder / "tf")
    freeze(folder / "tf", nodes, folder / "frozen_graph.pb")
    network = read_network(folder / "frozen_graph.pb")
    quantized, report = quantize(network, images, {}, SCALING, output_name=nodes["output"]["name"])
    write_artifacts(quantized, report, folder / "q.h5", folder / "quantize_eval_model.pb", folder / "q.json")
    ends = nodes["input"]["name"], nodes["output"]["name"]
    x = x[:64]
    np.save(folder / "images.npy", x)
    expected = {
        "keras": predictor(load_model(folder / "keras_trained_model.h5"))(x),
        "frozen_graph.pb": FrozenGraph(folder / "frozen_graph.pb", *ends).run(x),
        "quantize_eval_model.pb": FrozenGraph(folder / "quantize_eval_model.pb", *ends).run(x),
    }
    return folder, ends, expected


def compare(y, expected):
    """Probabilities equal but for float32 rounding, predictions equal."""
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_array_equal(y.argmax(1), expected.argmax(1))


@pytest.mark.parametrize("release", ["tf1.15.5", "tf2.3.4"])
def test_graphs(chain, release, tmp_path):
    folder, ends, expected = chain
    graphs = ("frozen_graph.pb", "quantize_eval_model.pb")
    files = [path for graph in graphs for path in (folder / graph, tmp_path / f"{graph}.npy")]
    version = run(release, FROZEN, *ends, folder / "images.npy", *files)
    assert version.split()[-1] == release.removeprefix("tf")
    for graph in graphs:
        compare(np.load(tmp_path / f"{graph}.npy"), expected[graph])


@pytest.mark.parametrize("release", ["tf2.3.4", "tf2.12"])
def test_keras_model(chain, release, tmp_path):
    folder, _, expected = chain
    version = run(
        release, KERAS, folder / "keras_trained_model.h5", folder / "images.npy", tmp_path / "y.npy"
    )
    assert version.split()[-1].startswith(release.removeprefix("tf"))
    compare(np.load(tmp_path / "y.npy"), expected["keras"])


CALIBRATION = """
import sys
import numpy as np
module = __import__("calibration_input", fromlist=["*"])
steps = [module.calibration_input(step) for step in range(module.BATCHES)]
assert all(list(fed) == ["input"] for fed in steps)
np.save(sys.argv[1], np.concatenate([fed["input"] for fed in steps]))
try:
    module.calibration_input(module.BATCHES)
except IndexError as error:
    print(sys.version_info[:2], np.__version__, error)
"""


@pytest.mark.parametrize(("release", "version"), [("numpy3.6", "(3, 6)"), ("tf1.15.5", "(3, 7)")])
def test_calibration_module(release, version, tmp_path):
    """Imported from the working directory, as the quantizer does, in a folder that was moved."""
    images = np.random.default_rng(0).integers(0, 256, (70, *SHAPE), np.uint8)
    nodes = {"input": {"name": "input", "shape": [None, *SHAPE]}, "output": {"name": "y"}}
    folder = tmp_path / "made"
    paths = (folder / name for name in ("calibration_images.npy", "calibration_input.py", "arguments.sh"))
    write_bundle(*paths, images, 32, nodes, SCALING)
    assert str(tmp_path) not in (folder / "calibration_input.py").read_text()
    moved = folder.rename(tmp_path / "moved elsewhere")
    printed = run(release, CALIBRATION, "fed.npy", cwd=moved)
    assert printed.startswith(version) and "batch 3 of 3: set --calib_iter to 3" in printed
    np.testing.assert_array_equal(np.load(moved / "fed.npy"), scale_pixels(images, SCALING))


PROGRAM = """
import runpy, sys
sys.argv[0] = sys.argv.pop(1)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_program_that_predicts_in_the_container(chain, tmp_path):
    """The program predict_frozen.py under TensorFlow 1.15 on our evaluation graph, all batches."""
    folder, ends, expected = chain
    pixels = np.rint(np.load(folder / "images.npy") * SCALING["divide"] + SCALING["subtract"]).astype(
        np.uint8
    )
    np.save(tmp_path / "pixels.npy", pixels)
    run(
        "tf1.15.5", PROGRAM, programs.FOLDER / "predict_frozen.py",
        "--graph", folder / "quantize_eval_model.pb", "--input-node", ends[0], "--output-node", ends[1],
        "--images", tmp_path / "pixels.npy", "--subtract", 128, "--divide", 128, "--batch", 25,
        "--output", tmp_path / "y.npy",
    )  # fmt: skip
    y = np.load(tmp_path / "y.npy")
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, expected["quantize_eval_model.pb"], atol=1e-6)


@pytest.mark.parametrize("program", programs.NAMES)
def test_programs_are_python_3_6(program):
    source = (programs.FOLDER / program).read_text()
    run("numpy3.6", "import sys; compile(sys.argv[1], 'program', 'exec')", source)
    assert "dpuflow" not in source.replace("dpuflow/", "")
