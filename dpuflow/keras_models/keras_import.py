"""Somebody's trained Keras file -> the same network as a plain model for the data set at hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.foreign_file import is_keras_archive
from dpuflow.base.last_bits import allowed_difference, nudge
from dpuflow.keras_models.copies import FLIPPED
from dpuflow.keras_models.keras3_config import translated
from dpuflow.keras_models.keras3_weights import load_weights
from dpuflow.keras_models.keras_archive import read_archive_weights
from dpuflow.keras_models.keras_config import check_foreign, is_keras_3, plain_config
from dpuflow.keras_models.keras_file import (
    built_by_keras,
    built_from_config,
    changed_copy,
    read_description,
)
from dpuflow.keras_models.prediction import predictor
from dpuflow.keras_models.rebuild import rebuild
from dpuflow.keras_models.stored_weights import without_values

TOLERANCE = 1e-4
"""Allowed difference between a model and its copy, as a share of the largest output: float32 sums in
another order stay far below, a layer that means something else far above."""
PROOF_IMAGES = 8


def import_model(
    path: Path | str, image_shape: Sequence[int], classes: int, answer: str | None = None
) -> tuple[Any, list[str]]:
    """Read a foreign H5 file or .keras archive; returns (plain Keras model, notes on what was changed).

    Parameters
    ----------
    path : H5 file of Keras 2, trained with TensorFlow or Theano; H5 file or .keras archive of Keras 3.
    image_shape : (H, W, C) of the data set's images.
    classes : number of classes of the data set. answer : which output says one (`rebuild.rebuild`).

    Raises
    ------
    UserError : another kind of file, a layer that cannot be taken over (by name), shapes that do not fit
        the data set, or a copy that does not give the original's values (`rebuild` says what it changes).
    """
    written, versions = read_description(path)
    archive = is_keras_archive(path)
    translate = archive or is_keras_3(versions)
    config = translated(path, written, keras_3=is_keras_3(versions)) if translate else written
    check_foreign(path, config, versions)
    config, turned = plain_config(path, config, image_shape)
    if translate:
        original = built_from_config(path, config)
        load_weights(path, read_archive_weights(path) if archive else path, original, written)
    else:
        with changed_copy(path, config) as file, without_values():
            original = built_by_keras(path, file)
    theano = versions["backend"] == "theano"
    notes = []
    if theano:
        count = turn_kernels(original)
        notes.append(f"trained with Theano: {count} convolution kernels turned by 180 degrees")
    if turned is not None:
        notes.append("trained with channels first: rebuilt with channels last")
    copied = rebuild(
        path,
        original,
        image_shape,
        classes,
        answer=answer,
        theano=theano,
        turned=turned,
        channels_first=turned is not None,
    )
    if not theano and turned is None:  # of the others TensorFlow cannot run the original
        prove_equal(path, original, copied, image_shape)
    return copied, notes


def turn_kernels(model: Any) -> int:
    """Turn the kernels of all convolutions by 180 degrees in place, shared ones once; returns how many."""
    layers, models = {}, [model]
    while models:
        for layer in models.pop().layers:
            if hasattr(layer, "layers"):
                models.append(layer)
            elif type(layer).__name__ in FLIPPED:
                layers[id(layer)] = layer
    for layer in layers.values():
        kernel, *bias = layer.get_weights()
        layer.set_weights([kernel[::-1, ::-1], *bias])
    return len(layers)


def prove_equal(path: Path | str, original: Any, copied: Any, image_shape: Sequence[int]) -> None:
    """UserError unless both give the same values on noise of the size of scaled and of raw pixels."""
    random = np.random.default_rng(0)
    noise = random.uniform(-1, 1, (PROOF_IMAGES, *image_shape)).astype(np.float32)
    shape = getattr(original, "input_shape", None) or (None, *image_shape)
    first, second = predictor(original), predictor(copied)
    for x in (noise, np.float32(255) * np.abs(noise)):
        given = (v if len(shape) == 4 else v.reshape(len(v), *shape[1:]) for v in (x, nudge(x, random)))
        originals = (_listed(_answers(path, first, v)) for v in given)
        for copy, values, moved in zip(_listed(second(x)), *originals, strict=True):
            _compare(path, _as_copied(values, copy), _as_copied(moved, copy), copy)


def _listed(values):
    return values if isinstance(values, list) else [values]


def _compare(path, expected, nudged, found):
    """UserError unless a copy's output is the original's; nudged : the original's of other last bits."""
    finite = np.isfinite(expected) & np.isfinite(nudged)  # exp of noise may be more than a float holds
    if finite.any():
        expected, nudged, found = expected[finite], nudged[finite], found[finite]
    difference = float(np.abs(expected - found).max())
    if not difference <= allowed_difference(expected, nudged, TOLERANCE):
        raise UserError(
            f"{path}: the model rebuilt for inference differs from the original by {difference:.1e}; "
            "this is a defect of dpuflow: please report it with the model's layers"
        )


def _answers(path, predict, x):
    """What the original answers; a damaged configuration may load and fail only here, in any way."""
    try:
        return predict(x)
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{path}: Keras loads this model but cannot run it ({reason[-1].strip()[:300]})"
        ) from None


def _as_copied(values, like):
    """Outputs of the original in the copy's form: one sigmoid as two probabilities, no axes of size 1."""
    if values.shape[1:] == (1,) and like.shape[1:] == (2,):
        values = np.concatenate([1 - values, values], axis=1)
    return values.reshape(like.shape)
