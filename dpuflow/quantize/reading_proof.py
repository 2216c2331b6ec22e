"""Does a frozen graph mean to the quantizer what it means to TensorFlow?"""

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.quantize.engine import run_float, single_threaded_blas
from dpuflow.tfgraph.graph_reader import read_network

IMAGES = 4
TOLERANCE = 0.02
"""Allowed difference as a share of the largest output: half precision is closer, another network is not."""


def prove_reading(graph_path: str, nodes: dict, x: np.ndarray, outputs: np.ndarray) -> None:
    """UserError unless the network that `graph_reader` reads gives TensorFlow's `outputs` for `x`.

    Looks at the first few images. A graph that cannot be read is none of this function's business: the
    vendor's tools may take it.

    Parameters
    ----------
    nodes : content of nodes.json; x : float32 (N, H, W, C); outputs : float32 (N, classes).
    """
    try:
        network = read_network(graph_path, nodes["input"]["name"], nodes["output"]["name"])
    except UserError:
        return
    outputs = outputs[:IMAGES]
    with single_threaded_blas():
        read = run_float(network, x[:IMAGES])[network.output.name].reshape(outputs.shape)
    size = float(np.abs(outputs).max()) or 1.0
    difference = float(np.abs(read - outputs).max())
    if not difference <= TOLERANCE * size:
        raise UserError(
            f"{graph_path}: as dpuflow reads this graph it gives other values than TensorFlow (by up to "
            f"{difference:.2g}, largest output {size:.2g}); that is a defect of dpuflow, or a graph that "
            "does not answer each image for itself, and whatever is made of it would be wrong"
        )
