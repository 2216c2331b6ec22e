"""Every position of the vendor's frozen-graph quantizer on its golden networks."""

import json

import numpy as np
import pytest

from dpuflow.quantize.compat_vai_q import choose_fix_points
from dpuflow.quantize.folding import fold
from dpuflow.tfgraph.graph_reader import read_network

RUNS = {"m0": ("non_overflow", False), "m1": ("min_diffs", False), "m1cle": ("min_diffs", True)}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", ["digits_plain", "synth_plain", "synth_res"])
def test_every_golden_position_is_equal(shared, name, run):
    expected = json.loads(shared("golden/vai_q/positions.json").read_text())[f"{name}.{run}"]["pos"]
    images = np.load(shared(f"golden/vai_q/{name.split('_')[0]}_calibration.npz"))["images"]
    network, notes = fold(read_network(shared(f"golden/vai_q/{name}.pb")))
    method, equalize = RUNS[run]
    positions, weights, biases, _, _ = choose_fix_points(network, images, method, 20, equalize)
    fused_into = {note["layer"]: note["into"] for note in notes}

    def ours(tensor):
        parts = tensor.split("/")
        scope = parts[1] if len(parts) > 2 else parts[0]
        if parts[-1] == "aquant":
            return positions[fused_into.get(scope, scope)]
        is_bias = parts[2] in ("Squeeze", "BiasAdd")
        return (biases if is_bias else weights)[scope][1]

    assert {tensor: ours(tensor) for tensor in expected} == expected
    assert len(expected) >= 23
