"""Random networks through both lowerings: the integer form, the float form and the quantizer agree."""

import numpy as np
from hand_network import window
from hypothesis import given, settings
from hypothesis import strategies as st

from dpuflow.base.numerics import dequantize
from dpuflow.compiler.quantized_graph import quantized_graph
from dpuflow.compiler.quantized_reading import read_quantized_graph
from dpuflow.compiler.reference import lower
from dpuflow.device.targets import get_target
from dpuflow.emulator.emulator import Emulator
from dpuflow.network import Layer, Network, QuantizedNetwork
from dpuflow.quantize.engine import run_integer
from dpuflow.xir import Graph, validate


@st.composite
def networks(draw):  # noqa: C901 - one case per operator
    """Random small networks: chains with side branches that additions and concatenations join."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def integers(*shape):
        return rng.integers(-128, 128, shape).astype(np.int8)

    shape = (draw(st.integers(4, 9)), draw(st.integers(4, 9)), draw(st.integers(1, 5)))
    layers = [Layer("x", "input", [], shape)]
    fixes, weights, biases = {"x": draw(st.integers(-2, 8))}, {}, {}

    def append(op, inputs, shape, attrs):
        name = f"{op}{len(layers)}"
        layers.append(Layer(name, op, inputs, shape, attrs))
        fixes[name] = fixes[inputs[0]]
        return name

    def weighted(op, source, shape, attrs, weight_shape):
        attrs["activation"] = draw(st.sampled_from(["NONE", "RELU", "LEAKYRELU"]))
        name = append(op, [source.name], shape, attrs)
        fixes[name] = fixes[source.name] + draw(st.integers(-5, 1))
        fix_weights = fixes[name] - fixes[source.name] + draw(st.integers(0, 12))
        weights[name] = (integers(*weight_shape), fix_weights)
        if draw(st.booleans()):
            fix_bias = fixes[source.name] + fix_weights - draw(st.integers(-1, 9))
            biases[name] = (integers(shape[-1]), fix_bias)

    def gate(kind, source):
        if kind == "hard_sigmoid":
            fixes[append("hard_sigmoid", [source.name], source.shape, {})] = 7
            return
        # by a map, or by one factor per channel
        others = [layer for layer in layers if layer.shape in (source.shape, (1, 1, source.shape[2]))]
        names = [source.name, draw(st.sampled_from(others)).name]
        name = append("multiply", draw(st.permutations(names)), source.shape, {})
        fixes[name] = sum(fixes[other] for other in names) - draw(st.integers(0, 12))

    for _ in range(draw(st.integers(1, 6))):
        source = layers[-1]
        height, width, channels = source.shape
        kernel = (draw(st.integers(1, min(3, width))), draw(st.integers(1, min(3, height))))
        stride = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
        # below the kernel: a window in the padding alone would have no maximum
        pad = tuple(draw(st.integers(0, size - 1)) for size in (kernel[0], kernel[0], kernel[1], kernel[1]))
        out_h = (height + pad[2] + pad[3] - kernel[1]) // stride[1] + 1
        out_w = (width + pad[0] + pad[1] - kernel[0]) // stride[0] + 1
        attrs = window(kernel, stride, pad)
        kinds = ["conv", "depthwise_conv", "max_pool", "avg_pool", "add", "concat", "multiply"]
        if 0 <= fixes[source.name] <= 15:
            kinds.append("hard_sigmoid")
        match draw(st.sampled_from(kinds)):
            case "conv":
                units = draw(st.integers(1, 9))
                shape = (units, kernel[1], kernel[0], channels)
                weighted("conv", source, (out_h, out_w, units), {**attrs, "dilation": (1, 1)}, shape)
            case "depthwise_conv":
                shape = (1, kernel[1], kernel[0], channels)
                weighted(
                    "depthwise_conv", source, (out_h, out_w, channels), {**attrs, "dilation": (1, 1)}, shape
                )
            case "add":
                others = [
                    layer
                    for layer in layers
                    if layer.shape == source.shape
                    and abs(fixes[layer.name] - fixes[source.name]) <= 12  # the shifts reach 15
                ]
                other = draw(st.sampled_from(others))
                name = append("add", [source.name, other.name], source.shape, {"activation": "RELU"})
                fixes[name] = fixes[source.name] + draw(st.integers(-3, 1))
            case "hard_sigmoid" | "multiply" as kind:
                gate(kind, source)
            case "concat":
                others = [
                    layer
                    for layer in layers
                    if layer.shape[:2] == source.shape[:2] and fixes[layer.name] == fixes[source.name]
                ]
                other = draw(st.sampled_from(others))
                shape = (height, width, channels + other.shape[2])
                append("concat", [source.name, other.name], shape, {"axis": 3})
            case pool:
                append(pool, [source.name], (out_h, out_w, channels), attrs)
    count = int(np.prod(layers[-1].shape))
    append("flatten", [layers[-1].name], (count,), {})
    units = draw(st.integers(2, 5))
    weighted("dense", layers[-1], (units,), {}, (units, count))
    if draw(st.booleans()):
        layers.append(Layer("prob", "softmax", [layers[-1].name], (units,)))
    scaling = {"subtract": 0.0, "divide": 255.0}
    return QuantizedNetwork(Network("random", layers), fixes, weights, biases, scaling)


@settings(max_examples=60)
@given(networks())
def test_random_networks_compute_the_same_in_all_three_forms(quantized):
    network = quantized.network
    graph, uncompiled = lower(quantized, get_target("ultra96v2")), quantized_graph(quantized)
    for form in (graph, uncompiled):
        assert validate.validate(Graph.from_bytes(form.to_bytes()), strict=True) == []
    images = np.random.default_rng(3).integers(-128, 128, (3, *network.input.shape)).astype(np.int8)
    expected = run_integer(quantized, images)[network.output.name]
    if network.output.op != "softmax":
        expected = dequantize(expected, quantized.fix_points[network.output.name])
    np.testing.assert_array_equal(Emulator(graph, threads=1).run(images), expected)
    np.testing.assert_array_equal(Emulator(uncompiled, threads=1).run(images), expected)


@settings(max_examples=40)
@given(networks())
def test_random_networks_come_back_from_the_uncompiled_form(tmp_path_factory, quantized):
    path = tmp_path_factory.mktemp("random") / "q.xmodel"
    quantized_graph(quantized).save(path)
    found = read_quantized_graph(path, "random", None)
    assert found.fix_points == quantized.fix_points
    # a maximum of one pixel is a downsampling; written, they are the same
    assert quantized_graph(found).to_bytes() == quantized_graph(quantized).to_bytes()
    for table in ("weights", "biases"):
        wanted, given = getattr(quantized, table), getattr(found, table)
        assert {n: f for n, (_, f) in given.items()} == {n: f for n, (_, f) in wanted.items()}
        assert all(np.array_equal(given[name][0], data) for name, (data, _) in wanted.items())
