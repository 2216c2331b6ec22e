"""Outputs of a quantized model as a program inside a container saved them."""

from pathlib import Path

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.files import read_array


def read_outputs(path: Path | str, images: int) -> np.ndarray:
    """float32 outputs (images, classes) of an .npy file; UserError when it is anything else."""
    outputs = read_array(path)
    if outputs.dtype.kind != "f":
        raise UserError(f"{path}: outputs of type {outputs.dtype}, expected float32; remove it and run again")
    if outputs.ndim != 2 or len(outputs) != images or not outputs.size:
        raise UserError(
            f"{path}: outputs of shape {outputs.shape}, expected one row for each of the {images} test "
            "images; remove it and run again"
        )
    if not np.isfinite(outputs).all():
        raise UserError(f"{path}: holds values that are not finite; the quantized model is broken")
    return np.array(outputs)
