"""Stand-in for VitisQuantizer: checks arguments, lets dpuflow quantize, saves an H5 in the tool's form."""

import contextlib
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import tensorflow as tf

BANNER = (
    "dpuflow stand-in for vai_q_tensorflow2: not the vendor's program, results by dpuflow's reference code"
)
OPTIONS = {
    "include_cle", "cle_steps", "cle_to_relu6", "include_fast_ft", "fast_ft_epochs", "fold_conv_bn",
    "convert_bn_to_dwconv", "convert_sigmoid_to_hard_sigmoid", "align_concat", "align_pool", "weight_method",
    "bias_method", "activation_method", "input_method", "separate_conv_act",
}  # fmt: skip


@contextlib.contextmanager
def quantize_scope():
    """The real one makes the quantizer's layers known to Keras; here there are none."""
    yield


class VitisQuantizer:
    """`VitisQuantizer(model).quantize_model(calib_dataset=...)`."""

    def __init__(self, model, quantize_strategy="pof2s"):
        if quantize_strategy != "pof2s":
            raise ValueError(f"stand-in VitisQuantizer: strategy {quantize_strategy!r}")
        self.model = model

    def quantize_model(self, calib_dataset, calib_batch_size, calib_steps, **options):
        """Positions by dpuflow; the saved model itself stays in floating point."""
        unknown = set(options) - OPTIONS
        if unknown:
            raise ValueError(f"stand-in VitisQuantizer: unknown options {sorted(unknown)}")
        if calib_dataset.dtype != np.float32 or calib_dataset.shape[1:] != self.model.input_shape[1:]:
            raise ValueError(f"stand-in VitisQuantizer: images {calib_dataset.dtype} {calib_dataset.shape}")
        if calib_steps != -(-len(calib_dataset) // calib_batch_size):
            raise ValueError("stand-in VitisQuantizer: calib_steps does not cover the images once")
        print(BANNER)
        print("[VAI INFO] Start Quantize Calibration...")
        quantized = quantize(self.model, calib_dataset, calib_batch_size)
        print(f"\r{calib_steps}/{calib_steps} [==============================] - 1s 5ms/step")
        for line in ("Quantize Calibration Done.", "Start Post-Quantize Adjustment...",
                     "Post-Quantize Adjustment Done.", "Quantization Finished."):  # fmt: skip
            print(f"[VAI INFO] {line}")
        return _Saveable(self.model, quantized)


def quantize(model, images, batch):
    """A QuantizedNetwork of a Keras model, by the chain's own steps."""
    from dpuflow.keras_models.keras_file import save_model
    from dpuflow.network import QuantizedNetwork
    from dpuflow.quantize.compat_vai_q import choose_fix_points
    from dpuflow.quantize.folding import fold
    from dpuflow.tfgraph.checkpoint import convert
    from dpuflow.tfgraph.freeze import freeze
    from dpuflow.tfgraph.graph_reader import read_network

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        save_model(model, folder / "model.h5")
        freeze(folder / "tf", convert(folder / "model.h5", folder / "tf"), folder / "frozen.pb")
        network, _ = fold(read_network(folder / "frozen.pb"))
    positions, weights, biases, _, _ = choose_fix_points(network, images, "min_diffs", batch)
    return QuantizedNetwork(network, positions, weights, biases, {"subtract": 0, "divide": 1})


class _Saveable:
    """What quantize_model returns: `save` writes the Keras model, each layer's positions and the network."""

    def __init__(self, model, quantized):
        self.model, self.quantized = model, quantized

    def save(self, path):
        sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "tools"))
        from common import to_bytes

        tf.keras.Model.save(self.model, path, save_format="h5")
        with h5py.File(path, "r+") as file:
            for layer in self.quantized.network.layers:
                group = file["model_weights"].require_group(f"quant_{layer.name}/quant_{layer.name}")
                positions = {"post_activation_pos:0": self.quantized.fix_points.get(layer.name)}
                if layer.name in self.quantized.weights:
                    positions["kernel_pos:0"] = self.quantized.weights[layer.name][1]
                    positions["bias_pos:0"] = self.quantized.biases[layer.name][1]
                for name, position in positions.items():
                    if position is not None:
                        group[name] = np.float32(position)
            file["stand_in_network"] = np.frombuffer(to_bytes(self.quantized), np.uint8)
