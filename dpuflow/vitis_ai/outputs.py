"""Outputs of a quantized model as a program inside a container saved them."""

import numpy as np

from dpuflow.errors import UserError


def read_outputs(path, images):
    """float32 outputs (images, classes) of an .npy file; UserError when it is anything else."""
    try:
        outputs = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not an .npy file ({error}); remove it and run again") from None
    if outputs.ndim != 2 or len(outputs) != images:
        raise UserError(
            f"{path}: outputs of shape {outputs.shape}, expected one row for each of the {images} test "
            "images; remove it and run again"
        )
    if not np.isfinite(outputs).all():
        raise UserError(f"{path}: holds values that are not finite; the quantized model is broken")
    return outputs
