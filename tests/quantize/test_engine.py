"""Integer arithmetic against the vendor runtime's golden cases and against plain int64 loops."""

import json

import numpy as np

from dpuflow.network import Layer, Network, QuantizedNetwork
from dpuflow.quantize import engine

KINDS = {
    "conv2d-fix": "conv",
    "depthwise-conv2d-fix": "depthwise_conv",
    "eltwise-fix": "add",
}


def layer_of_case(case, arrays):
    """A one-layer QuantizedNetwork and its inputs from a golden case."""
    key = case["id"]
    fix = case["fix_point"]
    op = KINDS.get(case["op"]) or ("max_pool" if case["type"] == "MAX" else "avg_pool")
    names = [n for n in (f"{key}_input", f"{key}_input_0", f"{key}_input_1") if n in arrays]
    inputs = [arrays[n] for n in names]
    fixes = fix["input"] if isinstance(fix["input"], list) else [fix["input"]]
    attrs = {}
    for name in ("kernel", "stride", "dilation", "pad"):
        if name in case and op != "add":
            attrs[name] = tuple(case[name])
    if op.endswith("conv"):
        attrs.setdefault("dilation", (1, 1))
    else:
        attrs.pop("dilation", None)
    if op not in ("max_pool", "avg_pool"):
        attrs["activation"] = case.get("nonlinear") or "NONE"
    output = arrays[f"{key}_output"]
    layers = [Layer(f"i{k}", "input", [], x.shape[1:]) for k, x in enumerate(inputs)]
    layers.append(Layer("y", op, [layer.name for layer in layers], output.shape[1:], attrs))
    fix_points = {f"i{k}": f for k, f in enumerate(fixes)} | {"y": fix["output"]}
    weights, biases = {}, {}
    if f"{key}_weights" in arrays:
        weights["y"] = (arrays[f"{key}_weights"], fix["weights"])
    if f"{key}_bias" in arrays:
        biases["y"] = (arrays[f"{key}_bias"], fix["bias"])
    quantized = QuantizedNetwork(Network("case", layers), fix_points, weights, biases, {})
    return quantized, inputs, output


def test_all_golden_operations_are_equal(shared):
    cases = json.loads(shared("golden/ops.json").read_text())
    arrays = dict(np.load(shared("golden/ops.npz")))
    wrong = []
    for case in cases:
        quantized, inputs, expected = layer_of_case(case, arrays)
        layer = quantized.network.layers[-1]
        got = engine.integer_layer(quantized, layer, [x.astype(np.float32) for x in inputs])
        if not np.array_equal(got, expected):
            wrong.append((case["id"], case["op"]))
    assert len(cases) == 600
    assert wrong == []


def test_a_bias_far_below_the_sums_step_counts():
    """shift_bias -6: the 64th part of a step decides, and float32 would lose it at this size of sums."""
    x = np.full(300, 127.0, np.float32)
    weights = np.full((1, 300), 127, np.int8)
    x[298:], weights[0, 299] = (82, 40), 1
    total = int(x.astype(int) @ weights[0].astype(int))
    assert total == 73 * 2**16 + 2**15  # half a step of the output, at shift_cut 16
    layers = [Layer("x", "input", [], (300,)), Layer("d", "dense", ["x"], (1,), {"activation": "NONE"})]
    for bias, expected in ((-1, 73), (0, 74), (1, 74)):
        quantized = QuantizedNetwork(
            Network("n", layers),
            {"x": 4, "d": -4},
            {"d": (weights, 8)},
            {"d": (np.array([bias], np.int8), 18)},
            {"subtract": 0, "divide": 1},
        )
        assert quantized.shift_bias("d") == -6 and quantized.shift_cut("d") == 16
        assert engine.run_integer(quantized, x[None])["d"].item() == expected
