"""What it costs that the DPU has something else for some layers: the float network before and after."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dpuflow.base.numerics import short
from dpuflow.network import Network
from dpuflow.quantize import blocks
from dpuflow.quantize.answers import float_values
from dpuflow.quantize.distance import Ends, EndsDistance, ends_agreement
from dpuflow.quantize.folding import REPLACED, Note


def replaced(folding: Sequence[Note]) -> list[str]:
    """Layers for which the DPU's function stands that is nearest, by the notes of `folding.fold`."""
    return [note["layer"] for note in folding if REPLACED in note["how"]]


def cost(
    folded: Network, folding: Sequence[Note], x: blocks.Batch, ends: Sequence[str], values: Ends
) -> dict[str, Any]:
    """{"layers", "how", "divergence", "agreement"} of the float network against the one before.

    x : network input; ends : layers that the outputs are made of; values : the folded network's there.
    """
    names, given = replaced(folding), copy.copy(folded)
    given.layers = [replace(layer, op="sigmoid") if layer.name in names else layer for layer in given.layers]
    before = float_values(given, x, ends)
    found = ends_agreement(values, before)
    return {
        "layers": names,
        "how": f"sigmoid {REPLACED} relu6(x + 3) / 6",
        "divergence": short(EndsDistance(before)(values)),
        "agreement": short(float(np.mean(list(found.values())))),
    }
