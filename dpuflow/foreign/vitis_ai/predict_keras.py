"""Runs inside the vendor's container: outputs of a model of VitisQuantizer for every image of an .npy file.

Plain argparse, Python 3.6 to 3.8.
"""

import argparse
import os

import numpy as np


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="quantized model, H5")
    parser.add_argument("--images", required=True, help="uint8 images, .npy of shape (N, H, W, C)")
    parser.add_argument(
        "--subtract", type=float, nargs="+", required=True, help="network input = (pixel - S) / D"
    )
    parser.add_argument("--divide", type=float, nargs="+", required=True, help="D, or one for each channel")
    parser.add_argument("--order", choices=["rgb", "bgr"], default="rgb", help="the network's channels")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--output", required=True, help="float32 outputs, .npy of shape (N, classes)")
    arguments = parser.parse_args()

    import tensorflow as tf
    from tensorflow_model_optimization.quantization.keras import vitis_quantize

    with vitis_quantize.quantize_scope():
        model = tf.keras.models.load_model(arguments.model, compile=False)
    images = np.load(arguments.images, mmap_mode="r")
    outputs = []
    for first in range(0, len(images), arguments.batch):
        pixels = images[first : first + arguments.batch].astype(np.float32)
        scaled = (pixels - np.float32(arguments.subtract)) / np.float32(arguments.divide)
        scaled = scaled[..., ::-1] if arguments.order == "bgr" else scaled
        outputs.append(model.predict_on_batch(scaled))
    # whole or absent, also when the container is killed
    partial = arguments.output + ".partial.npy"
    np.save(partial, np.concatenate(outputs).astype(np.float32))
    os.replace(partial, arguments.output)


if __name__ == "__main__":
    main()
