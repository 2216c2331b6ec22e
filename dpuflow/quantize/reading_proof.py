"""Does network.h5 mean to the quantizer what the graph behind it means to TensorFlow?"""

from pathlib import Path

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.threads import single_threaded_blas
from dpuflow.network import Network
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
    largest_difference(load_network(path), x[:IMAGES], outputs[:IMAGES], graph, "TensorFlow", TOLERANCE)


def largest_difference(
    network: Network, x: np.ndarray, outputs: np.ndarray, source: Path | str, judge: str, tolerance: float
) -> float:
    """How far a network's outputs for `x` are from those of who knows its source.

    Parameters
    ----------
    outputs : float32 (N, classes), or (N, 1) of one sigmoid, which is read as two classes.
    source : the file that was read; judge : who gave the outputs; both for messages.
    tolerance : allowed difference as a share of the largest output.

    Raises
    ------
    UserError : they differ by more.
    """
    with single_threaded_blas():
        read = run_float(network, x)[network.output.name].reshape(len(x), -1)
    if outputs.shape[1] == 1 and read.shape[1] == 2:
        outputs = np.concatenate([1 - outputs, outputs], axis=1)
    size = float(np.abs(outputs).max()) or 1.0
    difference = float(np.abs(read - outputs).max()) if read.shape == outputs.shape else np.inf
    if not difference <= tolerance * size:
        raise UserError(
            f"{source}: as dpuflow reads this graph it gives other values than {judge} (by up to "
            f"{difference:.2g}, largest output {size:.2g}); that is a defect of dpuflow, or a graph that "
            "does not answer each image for itself, and whatever is made of it would be wrong"
        )
    return difference
