"""What a container of Vitis AI is handed: calibration images, the module that reads them, arguments.

Everything is plain: NumPy arrays, a standalone Python module and a shell fragment, with no absolute path
and nothing of dpuflow in it, so that it works in a container with Python 3.6 and can be copied elsewhere.
"""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.files import write_text
from dpuflow.base.npy import write_npy
from dpuflow.base.outputs import only_end
from dpuflow.base.pixels import Scaling

IMAGES = "calibration_images.npy"
DEFAULT_BATCH = 32

MODULE = '''\
"""Calibration images for the vendor's quantizers, written by dpuflow: {images} images in {batches} batches.

vai_q_tensorflow: --input_fn calibration_input.calibration_input --calib_iter {batches}
Python 3.6 or later; reads {file} beside this file.
"""

import os

import numpy as np

INPUT_NODE = {node!r}
BATCH = {batch}
BATCHES = {batches}
SUBTRACT = {subtract!r}
DIVIDE = {divide!r}

_IMAGES = np.load(os.path.join(os.path.dirname(os.path.abspath(__file__)), {file!r}))


def network_input(first=0, last=None):
    """float32 network input (N, H, W, C), (pixel - SUBTRACT) / DIVIDE{note}, of the images [first, last)."""
    pixels = _IMAGES[first:last].astype(np.float32)
    return {turned}


def calibration_input(iter):
    """Batch number `iter`, from 0: {{input node: float32 images}}."""
    if not 0 <= iter < BATCHES:
        raise IndexError("batch %d of %d: set --calib_iter to %d" % (iter, BATCHES, BATCHES))
    return {{INPUT_NODE: network_input(iter * BATCH, (iter + 1) * BATCH)}}
'''


def batches(images: int, batch: int) -> int:
    """Number of calibration steps that show every image once; the last may be smaller."""
    return math.ceil(images / batch)


def chosen_images(images: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    """The first images of the calibration split, as many as the settings say; UserError if it has fewer."""
    wanted = settings.get("images", len(images))
    if wanted > len(images):
        raise UserError(
            f"calibration.images: {wanted} wanted, but the data set's calibration split holds {len(images)}; "
            "raise datasets.NAME.calibration.images"
        )
    return images[:wanted]


def module_text(images: int, batch: int, node: str, input_scaling: Scaling) -> str:
    """Source of the calibration module for `images` images in batches of `batch`."""
    bgr = input_scaling.get("order") == "bgr"
    scaled = "(pixels - np.float32(SUBTRACT)) / np.float32(DIVIDE)"
    return MODULE.format(
        images=images,
        batches=batches(images, batch),
        batch=batch,
        node=node,
        subtract=_floats(input_scaling["subtract"]),
        divide=_floats(input_scaling["divide"]),
        turned=f"np.ascontiguousarray(({scaled})[..., ::-1])" if bgr else scaled,
        note=" with the channels turned round" if bgr else "",
        file=IMAGES,
    )


def _floats(figure):
    return [float(n) for n in figure] if isinstance(figure, list | tuple) else float(figure)


def arguments_text(nodes: Mapping[str, Any], images: int, batch: int) -> str:
    """Shell fragment with what the quantizer's command line says about the network.

    nodes : content of nodes.json. input_shape is in the quantizer's notation, "?,28,28,1", compile_shape
    in the compiler's, "1,28,28,1".
    """
    sizes = ["?" if size is None else str(size) for size in nodes["input"]["shape"]]
    values = {
        "input_node": nodes["input"]["name"],
        "input_shape": ",".join(sizes),
        "compile_shape": ",".join(["1", *sizes[1:]]),
        "output_node": only_end(nodes, "the vendor's container flow")["name"],
        "calib_iter": str(batches(images, batch)),
    }
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())


def write_bundle(
    images_path: Path | str,
    module_path: Path | str,
    arguments_path: Path | str,
    images: np.ndarray,
    batch: int,
    nodes: Mapping[str, Any],
    input_scaling: Scaling,
) -> None:
    """Write calibration_images.npy, calibration_input.py and arguments.sh for uint8 images (N, H, W, C)."""
    write_npy(images_path, images)
    write_text(module_path, module_text(len(images), batch, nodes["input"]["name"], input_scaling))
    write_text(arguments_path, arguments_text(nodes, len(images), batch))
