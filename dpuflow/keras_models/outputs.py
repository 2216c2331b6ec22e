"""The outputs of a trained Keras model, by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.outputs import ONLY, Shapes
from dpuflow.base.pixels import Scaling, scale_pixels
from dpuflow.base.tensorflow_env import tensorflow
from dpuflow.keras_models.keras_file import inference_model
from dpuflow.keras_models.prediction import predictor


def output_names(model: Any) -> list[str]:
    """What the outputs of a Keras model are called (`base.outputs`): as Keras does, or ONLY."""
    names = [str(name) for name in model.output_names]
    if len(names) == 1:
        return [ONLY]
    if len(set(names)) < len(names):
        raise UserError(f"the Keras model has outputs of one name: {', '.join(names)}; name its last layers")
    return names


def named_outputs(model: Any, values: Any) -> dict[str, Any]:
    """{output's name: value} of what a call of the model gives."""
    listed: Sequence[Any] = values if isinstance(values, list | tuple) else [values]
    return dict(zip(output_names(model), listed, strict=True))


def require_one_output(model: Any, path: Path | str) -> None:
    """UserError for a model that cannot be trained here: labels tell one output, the class of a picture."""
    names = output_names(model)
    shapes = [tuple(tensor.shape[1:]) for tensor in model.outputs]
    if names != [ONLY] or len(shapes[0]) != 1:
        shown = ", ".join(f"{n!r} {list(shape)}" for n, shape in zip(names, shapes, strict=True))
        raise UserError(
            f"{path}: has the outputs {shown}; a model is trained further by the labels of a data set, so it "
            "must have one output, a value for each class; train it where it was made"
        )


class KerasStage:
    """`base.outputs.Stage` of a Keras model.

    Parameters
    ----------
    path : H5 file that this project wrote. input_scaling : see `base.pixels`. threads : cores to use.
    """

    def __init__(self, path: Path | str, input_scaling: Scaling, threads: int | None = None) -> None:
        tensorflow(threads)
        self.model, self.input_scaling = inference_model(path), input_scaling
        shapes = [tuple(tensor.shape[1:]) for tensor in self.model.outputs]
        self._shapes = dict(zip(output_names(self.model), shapes, strict=True))
        self._predict = predictor(self.model)

    @property
    def shapes(self) -> Shapes:
        """Of the outputs."""
        return dict(self._shapes)

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """{output's name: float32 (N, *shape)} of uint8 pictures."""
        return named_outputs(self.model, self._predict(scale_pixels(images, self.input_scaling)))
