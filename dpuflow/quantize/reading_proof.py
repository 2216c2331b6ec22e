"""Does network.h5 mean to the quantizer what the graph behind it means to TensorFlow?"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.last_bits import allowed_difference
from dpuflow.base.outputs import ONLY
from dpuflow.base.threads import single_threaded_blas
from dpuflow.network import Network
from dpuflow.network.ends import named_layers
from dpuflow.network.network_file import load_network, refusal
from dpuflow.quantize.engine import run_float

IMAGES = 4
TOLERANCE = 0.02
"""Allowed difference as a share of the largest output: half precision is closer, another network is not."""


def prove_reading(
    path: Path | str, graph: Path | str, x: np.ndarray, outputs: Mapping[str, np.ndarray]
) -> None:
    """UserError unless the network in `path` gives TensorFlow's `outputs` for `x`.

    Looks at the first few images. A graph that cannot be read is none of this function's business: the
    vendor's tools may take it.

    Parameters
    ----------
    path : network.h5; graph : the graph that gave the outputs, for messages.
    x : float32 (N, H, W, C); outputs : {output's name: float32 (N, ...)}.
    """
    if refusal(path) is not None:
        return
    some = {name: values[:IMAGES] for name, values in outputs.items()}
    largest_difference(load_network(path), x[:IMAGES], some, graph, "TensorFlow", TOLERANCE)


def largest_difference(
    network: Network,
    x: np.ndarray,
    outputs: Mapping[str, np.ndarray],
    source: Path | str,
    judge: str,
    tolerance: float,
    nudged: Mapping[str, np.ndarray] | None = None,
) -> float:
    """How far a network's outputs for `x` are from those of who knows its source: the largest of all.

    Parameters
    ----------
    outputs : {output's name: float32 (N, ...)}; an only value of one sigmoid is read as two classes.
    source : the file that was read; judge : who gave the outputs; both for messages.
    tolerance : allowed difference as a share of the largest value of the same output.
    nudged : the outputs for x with other last bits (`last_bits.nudge`); what they change is allowed on top,
        but never more than TOLERANCE.

    Raises
    ------
    UserError : they differ by more, or are not the same outputs.
    """
    layers = named_layers(network)
    if set(layers) != set(outputs):
        raise UserError(
            f"{source}: {judge} has the outputs {', '.join(outputs)}, dpuflow reads {', '.join(layers)}"
        )
    with single_threaded_blas():
        read = run_float(network, x)
    found = []
    for name, layer in layers.items():
        values, moved = (of[name].reshape(len(x), -1) for of in (outputs, nudged or outputs))
        most = max(tolerance, TOLERANCE) * float(np.abs(values).max())
        allowed = min(allowed_difference(values, moved, tolerance), most) if most else tolerance
        found.append(_difference(read[layer.name], values, name, source, judge, allowed))
    return max(found)


def _difference(read, outputs, name, source, judge, allowed):
    read = read.reshape(len(read), -1)
    if outputs.shape[1] == 1 and read.shape[1] == 2:
        outputs = np.concatenate([1 - outputs, outputs], axis=1)
    difference = float(np.abs(read - outputs).max()) if read.shape == outputs.shape else np.inf
    if not difference <= allowed:
        of = "" if name == ONLY else f" of output {name!r}"
        raise UserError(
            f"{source}: as dpuflow reads this graph it gives other values{of} than {judge} (by up to "
            f"{difference:.2g}, largest output {np.abs(outputs).max():.2g}); that is a defect of dpuflow, or "
            "a graph that does not answer each image for itself, and whatever is made of it would be wrong"
        )
    return difference
