"""Runs inside the vendor's container: outputs of quantize_eval_model.pb for every image of an .npy file.

Stock TensorFlow does not know the graph's FixNeuron op; the container's does. Plain argparse, Python 3.6 and
TensorFlow 1.15 or later.
"""

import argparse
import contextlib
import os

import numpy as np


def import_tensorflow():
    """TensorFlow's 1.x interface with the FixNeuron op registered.

    Releases up to 2.5 have the op built in; later ones register it when their package is imported.
    """
    import tensorflow as tf

    with contextlib.suppress(ImportError):
        import vai_q_tensorflow  # noqa: F401
    return tf.compat.v1


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graph", required=True, help="quantize_eval_model.pb")
    parser.add_argument("--input-node", required=True)
    parser.add_argument("--output-node", required=True)
    parser.add_argument("--images", required=True, help="uint8 images, .npy of shape (N, H, W, C)")
    parser.add_argument(
        "--subtract", type=float, nargs="+", required=True, help="network input = (pixel - S) / D"
    )
    parser.add_argument("--divide", type=float, nargs="+", required=True, help="D, or one for each channel")
    parser.add_argument("--order", choices=["rgb", "bgr"], default="rgb", help="the network's channels")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--output", required=True, help="float32 outputs, .npy of shape (N, classes)")
    arguments = parser.parse_args()

    tf = import_tensorflow()
    graph_def = tf.GraphDef()
    with open(arguments.graph, "rb") as stream:
        graph_def.ParseFromString(stream.read())
    images = np.load(arguments.images, mmap_mode="r")
    outputs = []
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
        x = graph.get_tensor_by_name(arguments.input_node + ":0")
        y = graph.get_tensor_by_name(arguments.output_node + ":0")
        with tf.Session(graph=graph) as session:
            for first in range(0, len(images), arguments.batch):
                pixels = images[first : first + arguments.batch].astype(np.float32)
                scaled = (pixels - np.float32(arguments.subtract)) / np.float32(arguments.divide)
                scaled = scaled[..., ::-1] if arguments.order == "bgr" else scaled
                outputs.append(session.run(y, {x: scaled}))
    # whole or absent, also when the container is killed
    partial = arguments.output + ".partial.npy"
    np.save(partial, np.concatenate(outputs).astype(np.float32))
    os.replace(partial, arguments.output)


if __name__ == "__main__":
    main()
