"""Images per second: the emulator, TensorFlow Lite's INT8 interpreter, TensorFlow's float graph.

    python benchmarks/emulator.py                                 # a random network of its own
    python benchmarks/emulator.py --xmodel M.xmodel --frozen frozen_graph.pb

All contenders run on random images in the same process, in turns, `--rounds` times; the best
round of each counts, because the machine may be busy with other things. TensorFlow Lite
converts the same float graph to INT8 (calibrated on random images) and runs it with
`--threads` threads, one image per call (as its users do) and in batches of 32; the
float graph is evaluated one image at a time. Loading is measured apart from running.
Exit status 1 if a goal is missed.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dpuflow.emulator import Emulator, random_cases
from dpuflow.xir import Graph

# not dpuflow.tensorflow_env: its determinism could slow the contenders down
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SECONDS_GOAL = 3.0
TFLITE_GOAL = 1.0
FLOAT_GOAL = 2.0


def random_frozen_graph(widths=(32, 64, 64), hidden=128, classes=25):
    """GraphDef of the float network that `random_cases.sign_network` has the shape of."""
    import tensorflow as tf
    import tf_keras as keras
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    keras.utils.set_random_seed(0)
    layers = [keras.layers.InputLayer((28, 28, 1), name="image")]
    for width in widths:
        layers += [keras.layers.Conv2D(width, 3, padding="same", activation="relu"), keras.layers.MaxPool2D()]
    layers += [keras.layers.Flatten(), keras.layers.Dense(hidden, activation="relu")]
    model = keras.Sequential([*layers, keras.layers.Dense(classes, activation="softmax")])
    function = tf.function(model).get_concrete_function(tf.TensorSpec((None, 28, 28, 1), tf.float32))
    return convert_variables_to_constants_v2(function).graph.as_graph_def()


def read_frozen_graph(path):
    """GraphDef of a frozen_graph.pb."""
    import tensorflow as tf

    graph_def = tf.compat.v1.GraphDef()
    graph_def.ParseFromString(Path(path).read_bytes())
    return graph_def


def ends(graph_def):
    """Names of the placeholder and of the last op of a frozen graph."""
    read = {name.split(":")[0].lstrip("^") for node in graph_def.node for name in node.input}
    source = next(node.name for node in graph_def.node if node.op == "Placeholder")
    result = [node.name for node in graph_def.node if node.name not in read and node.op != "NoOp"]
    return source, result[-1]


def tflite_bytes(graph_def, shape):
    """The frozen graph as an INT8 model of TensorFlow Lite."""
    import tensorflow as tf

    source, result = ends(graph_def)
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(graph_def, name="")
    with tf.compat.v1.Session(graph=graph) as session:
        tensors = [graph.get_tensor_by_name(f"{name}:0") for name in (source, result)]
        tensors[0].set_shape((None, *shape))
        converter = tf.compat.v1.lite.TFLiteConverter.from_session(session, tensors[:1], tensors[1:])
        rng = np.random.default_rng(0)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([rng.random((1, *shape), np.float32)] for _ in range(50))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        return converter.convert()


def tflite_contender(model, images, batch, threads):
    """Callable that sends all images through the interpreter; returns the number of them."""
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(model_content=model, num_threads=threads)
    source = interpreter.get_input_details()[0]["index"]
    result = interpreter.get_output_details()[0]["index"]
    interpreter.resize_tensor_input(source, (batch, *images.shape[1:]))
    interpreter.allocate_tensors()
    count = len(images) // batch * batch

    def run():
        for start in range(0, count, batch):
            interpreter.set_tensor(source, images[start : start + batch])
            interpreter.invoke()
            interpreter.get_tensor(result)
        return count

    return run


def float_contender(graph_def, images):
    """Callable that evaluates the float graph image by image."""
    import tensorflow as tf

    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(graph_def, name="")
    source, result = ends(graph_def)
    session = tf.compat.v1.Session(graph=graph)
    call = session.make_callable(f"{result}:0", [f"{source}:0"])

    def run():
        for start in range(len(images)):
            call(images[start : start + 1])
        return len(images)

    return run


def emulator_contender(emulator, images):
    """Callable that runs the emulator on all images at once."""

    def run():
        emulator.run(images)
        return len(images)

    return run


def measure(contenders, rounds):
    """({name: best images per second}, {name: best images per second of CPU time, all threads}).

    One warm-up each, then rounds in turns.
    """
    best, cpu_best = dict.fromkeys(contenders, 0.0), dict.fromkeys(contenders, 0.0)
    for run in contenders.values():
        run()
    for _ in range(rounds):
        for name, run in contenders.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            count = run()
            cpu_best[name] = max(cpu_best[name], count / (time.process_time() - cpu_start))
            best[name] = max(best[name], count / (time.perf_counter() - start))
    return best, cpu_best


def main():
    """Print the figures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--xmodel")
    parser.add_argument("--frozen")
    parser.add_argument("--images", type=int, default=7172)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    if bool(chosen.xmodel) != bool(chosen.frozen):
        parser.error("--xmodel and --frozen belong together")

    rng = np.random.default_rng(0)
    start = time.perf_counter()
    graph = Graph.load(chosen.xmodel) if chosen.xmodel else random_cases.sign_network(rng)
    emulator = Emulator(graph, threads=chosen.threads)
    shape = emulator.input.tensor.shape[1:]
    images = rng.integers(-128, 128, (chosen.images, *shape)).astype(np.int8)
    emulator.run(images[:1])
    loading = time.perf_counter() - start

    graph_def = read_frozen_graph(chosen.frozen) if chosen.frozen else random_frozen_graph()
    model = tflite_bytes(graph_def, shape)
    few = images[: min(len(images), 2048)]
    best, cpu_best = measure(
        {
            f"emulator ({emulator.backend})": emulator_contender(emulator, images),
            "emulator (numpy)": emulator_contender(Emulator(graph, chosen.threads, False), images),
            "TensorFlow Lite INT8, batch 1": tflite_contender(model, few, 1, chosen.threads),
            "TensorFlow Lite INT8, batch 32": tflite_contender(model, few, 32, chosen.threads),
            "TensorFlow float graph, batch 1": float_contender(graph_def, few.astype(np.float32)[:512]),
        },
        chosen.rounds,
    )
    first, _, lite, lite_batched, exact = best
    seconds = len(images) / best[first]
    size = "x".join(map(str, shape))
    print(f"{chosen.threads} threads, {len(images)} images of {size}, best of {chosen.rounds} rounds")
    for name, rate in best.items():
        print(f"  {name:34} {rate:10.0f} images/s {cpu_best[name]:10.0f} per s of CPU time")
    print(f"  loading and first image            {loading:10.3f} s")
    goals = [
        (f"all {len(images)} images in {seconds:.3f} s (goal {SECONDS_GOAL} s)", seconds < SECONDS_GOAL),
        *(
            (f"{ratio:.2f} x {name} (goal {goal})", ratio >= goal)
            for name, goal in ((lite, TFLITE_GOAL), (lite_batched, TFLITE_GOAL), (exact, FLOAT_GOAL))
            for ratio in (best[first] / best[name],)
        ),
    ]
    for text, reached in goals:
        print(f"  {'met   ' if reached else 'MISSED'} {text}")
    return 0 if all(reached for _, reached in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
