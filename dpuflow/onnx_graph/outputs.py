"""The outputs of an ONNX model as trained, by name and with the network's order of axes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dpuflow.base.outputs import Shapes
from dpuflow.base.pixels import Scaling, scale_pixels
from dpuflow.onnx_graph.model_file import OutputNames, open_model
from dpuflow.onnx_graph.reader import Layout, read_onnx_and_layouts
from dpuflow.onnx_graph.runtime import OnnxModel


class OnnxStage:
    """`base.outputs.Stage` of an ONNX model in onnxruntime.

    Parameters
    ----------
    path : ONNX file. image_shape : (H, W, C) of the pictures. input_scaling : see `base.pixels`.
    input_name, output_name, own : as for `model_file.open_model`.
    """

    def __init__(
        self,
        path: Path | str,
        image_shape: Sequence[int],
        input_scaling: Scaling,
        input_name: str | None = None,
        output_name: OutputNames = None,
        own: bool = False,
    ) -> None:
        opened = open_model(path, image_shape, input_name, output_name, own)
        self.model, self.input_scaling = OnnxModel(opened), input_scaling
        found = self.model.run_all(np.zeros((1, *image_shape), np.float32))
        shapes = {name: values.shape[1:] for name, values in found.items()}
        if len(shapes) == 1 and [n > 1 for shape in shapes.values() for n in shape].count(True) == 1:
            self.layouts = {name: Layout((max(shape),)) for name, shape in shapes.items()}  # a vector
        else:
            height, width, channels = image_shape
            self.layouts = read_onnx_and_layouts(opened, (height, width, channels), "network")[1]

    @property
    def shapes(self) -> Shapes:
        """Of the outputs."""
        return {name: layout.shape for name, layout in self.layouts.items()}

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """{output's name: float32 (N, *shape)} of uint8 pictures."""
        found = self.model.run_all(scale_pixels(images, self.input_scaling))
        return {name: layout.arranged(found[name]) for name, layout in self.layouts.items()}
