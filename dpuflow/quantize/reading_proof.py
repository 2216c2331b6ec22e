"""Does network.h5 mean to the quantizer what the graph behind it means to TensorFlow?"""

from pathlib import Path

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.threads import single_threaded_blas
from dpuflow.network.network_file import load_network, refusal
from dpuflow.quantize.engine import run_float

IMAGES = 4
TOLERANCE = 0.02
"""Allowed difference as a share of the largest output: half precision is closer, another network is not."""


def prove_reading(path: Path | str, graph: Path | str, x: np.ndarray, outputs: np.ndarray) -> None:
    """UserError unless the network in `path` gives TensorFlow's `outputs` for `x`.

    Looks at the first few images. A graph that cannot be read is none of this function's business: the
    vendor's tools may take it.

    Parameters
    ----------
    path : network.h5; graph : the graph that gave the outputs, for messages.
    x : float32 (N, H, W, C); outputs : float32 (N, classes).
    """
    if refusal(path) is not None:
        return
    network = load_network(path)
    outputs = outputs[:IMAGES]
    with single_threaded_blas():
        read = run_float(network, x[:IMAGES])[network.output.name].reshape(outputs.shape)
    size = float(np.abs(outputs).max()) or 1.0
    difference = float(np.abs(read - outputs).max())
    if not difference <= TOLERANCE * size:
        raise UserError(
            f"{graph}: as dpuflow reads this graph it gives other values than TensorFlow (by up to "
            f"{difference:.2g}, largest output {size:.2g}); that is a defect of dpuflow, or a graph that "
            "does not answer each image for itself, and whatever is made of it would be wrong"
        )
