"""The quantizer at real size, 224 x 224 in colour: seconds, peak memory, and what INT8 loses.

    python benchmarks/real_size_quantizer.py [--networks ResNet50 ...] [--pictures 200] [--quick]
        [--trained efficientnet_lite0.h5 --data imagenet_sample_224.zip --subtract 127 --divide 128]

Networks with random weights (batch norms calibrated, pictures of smoothed noise) are quantized plain and
with fine-tuning, without the diagnosis, each in a process of its own; memory is the whole process. A trained
network (`--trained`, a Keras H5) is quantized with three choices of a hundred of the pictures in `--data`, a
zip of `calibration/NNNN_name/*.jpg` and `test/NNNN_name/*.jpg` where NNNN is the class: those of the folder
`calibration`, then two draws from all; what is not chosen, it is tested on.
"""

import io
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from measuring import Goals, in_child, parser_of, progress, table
from real_size_networks import NETWORKS, freeze

SIZE = 224
WAYS = {"plain": {"fast_finetune": False, "diagnosis": False}, "fine-tuned": {"diagnosis": False}}
SCALING = {"subtract": 127.5, "divide": 127.5}
SECONDS = {
    ("ResNet50", "plain"): 90,
    ("ResNet50", "fine-tuned"): 480,
    ("trained", "plain"): 30,
    ("trained", "fine-tuned"): 120,
}
MEMORY = 2048
"""MiB, at most."""
LOST, AGREEMENT = 0.5, 0.97
"""Points that INT8 may lose with fine-tuning on average, and the least share of answers as in float."""
CHOICES, CHOSEN = 3, 100


def noise(count, size, seed=0):
    """uint8 pictures (count, size, size, 3): noise, smooth at several scales."""
    random, total = np.random.default_rng(seed), np.zeros((count, size, size, 3), np.float32)
    for step in (1, 4, 16, 56):
        coarse = random.normal(size=(count, -(-size // step), -(-size // step), 3)).astype(np.float32)
        total += np.repeat(np.repeat(coarse, step, axis=1), step, axis=2)[:, :size, :size]
    return np.clip(128 + 32 * total, 0, 255).astype(np.uint8)


def quantize_here(graph, images, settings, scaling, tests=None):
    """Quantize a frozen graph in this process; the classes of float and INT8 of the test images, if any."""
    from dpuflow.quantize import blocks
    from dpuflow.quantize.answers import float_values
    from dpuflow.quantize.position_search import logits_name
    from dpuflow.quantize.reference import predict, quantize
    from dpuflow.tfgraph.graph_reader import read_network

    network = read_network(graph)
    quantized, _ = quantize(network, np.load(images), settings, scaling)
    if tests is None:
        return None
    pixels, name = np.load(tests, mmap_mode="r"), logits_name(network)
    with blocks.on_cores():
        floats = float_values(network, blocks.Pictures(pixels, scaling), [name])[name]
    return floats.argmax(axis=1), predict(quantized, pixels).argmax(axis=1)


def measure_random(options, folder):
    """Rows (network, pictures, way, seconds, MiB) of networks with random weights."""
    images = folder / "noise.npy"
    np.save(images, noise(options.pictures, options.size))
    for name in options.networks:
        graph = folder / f"{name}.pb"
        progress(f"{name}: freezing")
        pixels = np.load(images)[:16].astype(np.float32)
        # in a process of its own: TensorFlow's memory shall not be ours
        in_child(freeze, name, options.size, graph, (pixels - 127.5) / 127.5, repeats=1, warm_up=False)
        for way, settings in WAYS.items():
            progress(f"{name}: {way}")
            found = in_child(quantize_here, graph, images, settings, SCALING, repeats=1, warm_up=False)
            yield name, options.pictures, way, found.median, found.peak


def read_zip(path):
    """(images uint8 (N, size, size, 3), labels (N,), which are of the folder calibration)."""
    from PIL import Image

    with zipfile.ZipFile(path) as file:
        names = sorted(name for name in file.namelist() if name.lower().endswith((".jpg", ".png")))
        images = np.stack([np.asarray(Image.open(io.BytesIO(file.read(n))).convert("RGB")) for n in names])
    labels = np.array([int(name.split("/")[1].split("_")[0]) for name in names])
    return images, labels, np.array([name.startswith("calibration/") for name in names])


def freeze_trained(h5, path):
    """Write the frozen graph of a Keras H5."""
    from dpuflow.base.tensorflow_env import keras, tensorflow

    tf = tensorflow()
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    model = keras().models.load_model(h5, compile=False)
    spec = tf.TensorSpec(model.inputs[0].shape, tf.float32)
    graph = convert_variables_to_constants_v2(tf.function(model).get_concrete_function(spec)).graph
    Path(path).write_bytes(graph.as_graph_def().SerializeToString())


def measure_trained(options, folder):
    """Rows (choice, way, seconds, MiB, float accuracy, INT8 accuracy, agreement) of the trained network."""
    images, labels, given = read_zip(options.data)
    graph, scaling = folder / "trained.pb", {"subtract": options.subtract, "divide": options.divide}
    in_child(freeze_trained, options.trained, graph, repeats=1, warm_up=False)
    for choice in range(options.choices):
        chosen = given
        if choice:
            rows = np.random.default_rng(choice).choice(len(images), CHOSEN, replace=False)
            chosen = np.isin(np.arange(len(images)), rows)
        np.save(folder / "chosen.npy", images[chosen])
        np.save(folder / "tests.npy", images[~chosen])
        for way, settings in WAYS.items():
            progress(f"trained network, choice {choice + 1}: {way}")
            one = graph, folder / "chosen.npy", settings, scaling
            timed = in_child(quantize_here, *one, repeats=1, warm_up=False)
            floats, integers = in_child(
                quantize_here, *one, folder / "tests.npy", repeats=1, warm_up=False
            ).result
            right = [float((classes == labels[~chosen]).mean()) for classes in (floats, integers)]
            yield choice + 1, way, timed.median, timed.peak, *right, float((floats == integers).mean())


def main():
    """Measure and print the section; returns the exit status."""
    parser = parser_of(__doc__, repeats=1)
    parser.add_argument("--networks", nargs="*", choices=list(NETWORKS), default=["ResNet50"])
    parser.add_argument("--pictures", type=int, default=200, help="calibration pictures")
    parser.add_argument("--trained", type=Path, help="Keras H5 of a trained network")
    parser.add_argument("--data", type=Path, help="zip of pictures for it")
    parser.add_argument("--subtract", type=float, default=127)
    parser.add_argument("--divide", type=float, default=128)
    parser.add_argument("--choices", type=int, default=CHOICES, help="of calibration pictures")
    options = parser.parse_args()
    options.size = SIZE
    if options.quick:
        options.size, options.pictures, options.networks = 64, 4, ["MobileNet"]
    goals = Goals(not options.quick)
    print("## Quantizer at real size\n")
    with tempfile.TemporaryDirectory(prefix="dpuflow-bench-") as name:
        rows = []
        for network, pictures, way, seconds, peak in measure_random(options, Path(name)):
            rows.append((network, pictures, way, f"{seconds:.1f}", f"{peak:.0f}"))
            _judge(goals, network, way, seconds, peak)
        print(table(("network, random weights", "pictures", "way", "seconds", "peak MiB"), rows))
        if options.trained and options.data:
            _trained(options, Path(name), goals)
    print(f"{options.size} x {options.size} x 3; one run each in its own process, without the diagnosis.\n")
    return goals.finish()


def _judge(goals, network, way, seconds, peak):
    most = SECONDS.get((network, way))
    if most:
        goals.add(f"{network}, {way}: {seconds:.0f} s (goal: at most {most})", seconds <= most)
    goals.add(f"{network}, {way}: {peak:.0f} MiB (goal: at most {MEMORY})", peak <= MEMORY)


def _trained(options, folder, goals):
    rows, lost, agreements = [], [], []
    for choice, way, seconds, peak, before, after, agreement in measure_trained(options, folder):
        figures = f"{seconds:.1f}", f"{peak:.0f}", *(f"{100 * n:.2f} %" for n in (before, after, agreement))
        rows.append((choice, way, *figures))
        _judge(goals, "trained", way, seconds, peak)
        if way == "fine-tuned":
            lost.append(100 * (before - after))
            agreements.append(agreement)
    print(table(("choice", "way", "seconds", "peak MiB", "float", "INT8", "same answer"), rows))
    mean, same = float(np.mean(lost)), float(np.mean(agreements))
    goals.add(f"{mean:.2f} points lost on average (goal: at most {LOST})", mean <= LOST)
    goals.add(f"{same:.4f} of the answers as in float (goal: at least {AGREEMENT})", same >= AGREEMENT)


if __name__ == "__main__":
    sys.exit(main())
