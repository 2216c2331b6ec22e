"""Runs inside the vendor's container: Keras H5 -> INT8 by VitisQuantizer (vai_q_tensorflow2).

Plain argparse, Python 3.6 to 3.8, nothing but the container's own packages and the calibration module beside
this file's bundle. The calibration images are given as one float32 array.
"""

import argparse
import importlib.util
import json
import os


def load_calibration(path):
    """The generated calibration module of a file."""
    spec = importlib.util.spec_from_file_location("calibration_input", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="trained Keras model, H5")
    parser.add_argument("--calibration", required=True, help="calibration_input.py of the bundle")
    parser.add_argument("--options", default="{}", help="options of the quantizer, JSON")
    parser.add_argument("--output", required=True, help="quantized model, H5")
    arguments = parser.parse_args()
    options = json.loads(arguments.options)
    strategy = options.pop("quantize_strategy", "pof2s")

    import tensorflow as tf
    from tensorflow_model_optimization.quantization.keras import vitis_quantize

    calibration = load_calibration(arguments.calibration)
    model = tf.keras.models.load_model(arguments.model, compile=False)
    quantizer = vitis_quantize.VitisQuantizer(model, quantize_strategy=strategy)
    quantized = quantizer.quantize_model(
        calib_dataset=calibration.network_input(),
        calib_batch_size=calibration.BATCH,
        calib_steps=calibration.BATCHES,
        **options,
    )
    # whole or absent, also when the container is killed; the ending chooses Keras' format
    partial = arguments.output + ".partial.h5"
    quantized.save(partial)
    os.replace(partial, arguments.output)


if __name__ == "__main__":
    main()
