"""The outputs of a network in NumPy, by name: in float, and in the DPU's integers."""

import numpy as np

from dpuflow.base.outputs import Shapes
from dpuflow.base.pixels import Scaling
from dpuflow.network import Network, QuantizedNetwork
from dpuflow.network.ends import named_layers
from dpuflow.quantize import blocks
from dpuflow.quantize.answers import float_values, integer_values


class FloatStage:
    """`base.outputs.Stage` of a float Network. input_scaling : see `base.pixels`. threads : cores to use."""

    def __init__(self, network: Network, input_scaling: Scaling, threads: int | None = None) -> None:
        self.network, self.input_scaling, self.threads = network, input_scaling, threads

    @property
    def shapes(self) -> Shapes:
        """Of the outputs."""
        return {name: layer.shape for name, layer in named_layers(self.network).items()}

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """{output's name: float32 (N, *shape)} of uint8 pictures."""
        layers = named_layers(self.network)
        names = list(dict.fromkeys(layer.name for layer in layers.values()))
        with blocks.on_cores(self.threads):
            values = float_values(self.network, blocks.Pictures(images, self.input_scaling), names)
        return {name: values[layer.name].astype(np.float32, copy=False) for name, layer in layers.items()}


class EngineStage:
    """`base.outputs.Stage` of a QuantizedNetwork in integers, given in real units. threads : cores to use."""

    def __init__(self, quantized: QuantizedNetwork, threads: int | None = None) -> None:
        self.quantized, self.threads = quantized, threads

    @property
    def shapes(self) -> Shapes:
        """Of the outputs."""
        return {name: layer.shape for name, layer in named_layers(self.quantized.network).items()}

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """{output's name: float32 (N, *shape)} of uint8 pictures."""
        quantized, layers = self.quantized, named_layers(self.quantized.network)
        names = list(dict.fromkeys(layer.name for layer in layers.values()))
        with blocks.on_cores(self.threads):
            values = integer_values(quantized, blocks.Pictures(images, quantized.input_scaling), names)
        steps = {name: np.float32(2.0 ** -quantized.fix_points.get(name, 0)) for name in names}
        return {
            name: (values[layer.name] * steps[layer.name]).astype(np.float32, copy=False)
            for name, layer in layers.items()
        }
