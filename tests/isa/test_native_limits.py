"""What the native compiler cannot compile is known from the layers' shapes, and it compiles the rest."""

import numpy as np
import pytest
from test_native_xmodel import SIZES, Builder

from dpuflow.base.errors import UserError
from dpuflow.compiler.reference import lower
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.isa.machine import machine_for
from dpuflow.dpuczdx8g.isa.runner import IsaRunner
from dpuflow.dpuczdx8g.native import limits
from dpuflow.dpuczdx8g.native.generator import Generator
from dpuflow.dpuczdx8g.native.lowering import lower_subgraph
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.emulator import Emulator
from dpuflow.network import Layer, Network, QuantizedNetwork


def layer(op, shape, kernel, stride=(1, 1), dilation=(1, 1), channels=None, pad=0):
    """A Network of one layer on a map of `shape`; kernel, stride, dilation are (w, h); pad on each side."""
    height, width, inputs = (shape[0] + 2 * pad, shape[1] + 2 * pad, shape[2])
    span = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    output = ((height - span[1]) // stride[1] + 1, (width - span[0]) // stride[0] + 1, channels or inputs)
    attrs = {"kernel": kernel, "stride": stride, "pad": (pad,) * 4}
    if "conv" in op:
        attrs |= {"dilation": dilation, "activation": "NONE"}
    return Network("one", [Layer("x", "input", [], shape), Layer("it", op, ["x"], output, attrs)])


WEIGHTS = "kernel_w * kernel_h * ceil(input channels / parallelism)"
REFUSED = [
    (layer("max_pool", (100, 300, 3), (256, 100)), "window", "256x100 on 3 channels"),
    (layer("avg_pool", (200, 200, 40), (200, 200)), "window", "200x200 on 40 channels"),
    # a step beside the dilation: written out with zeros
    (layer("conv", (40, 40, 8), (3, 3), (2, 1), dilation=(8, 1), channels=8), "kernel width", "17"),
    # 13 x 13 taps of 16 groups of channels: the weight bank has 2048 entries
    (layer("conv", (40, 40, 256), (3, 3), (2, 2), dilation=(6, 6), channels=8), WEIGHTS, "2704"),
    (layer("depthwise_conv", (9, 9, 8), (1, 1), pad=1), "padding left", "1"),
    (layer("depthwise_conv", (9, 9, 8), (3, 2), (2, 2), pad=2), "padding top", "2"),
]
TAKEN = [
    layer("avg_pool", (10, 10, 2048), (10, 10)),
    layer("max_pool", (60, 60, 64), (15, 60)),
    layer("depthwise_conv", (20, 20, 960), (7, 7)),
    layer("conv", (40, 40, 8), (3, 3), dilation=(4, 4), channels=8),
    layer("conv", (40, 40, 128), (3, 3), dilation=(8, 10), channels=8),
    layer("conv", (20, 20, 40), (16, 16), channels=8),
]


@pytest.mark.parametrize(("network", "limit", "value"), REFUSED, ids=lambda x: "")
def test_known_from_the_shapes(network, limit, value):
    (finding,) = limits.check(network, get_target("DPUCZDX8G_ISA1_B4096"))
    assert (finding.layer, finding.limit) == ("it", limit) and value in str(finding.value) and finding.remedy


def test_what_is_not_refused_is_taken_on_every_size():
    for size in SIZES:
        for network in TAKEN:
            assert limits.check(network, get_target(f"DPUCZDX8G_ISA1_{size}")) == [], (
                size,
                network.layers[1],
            )


def random_layer(random):
    """A network of one random layer, among them windows as large as the fields allow."""
    op = str(random.choice(["conv", "depthwise_conv", "max_pool", "avg_pool"]))
    height, width = (int(2 ** random.uniform(0, 8)) for _ in "hw")
    channels = int(2 ** random.uniform(0, min(11.2, 18 - np.log2(height * width))))
    most = 16 if op == "conv" else 256
    kernel = [min(int(2 ** random.uniform(0, np.log2(most + 1))), size) for size in (width, height)]
    if random.random() < 0.3:
        kernel = [min(width, most), min(height, most)]
    stride = [int(random.integers(1, min(8, size) + 1)) for size in kernel]
    outputs = int(2 ** random.uniform(0, 7)) if op == "conv" else channels
    return layer(op, (height, width, channels), tuple(kernel), tuple(stride), channels=outputs)


def test_whatever_is_not_refused_has_code():
    """Single layers at random: the answer by shapes against the generator itself."""
    random, refused = np.random.default_rng(0), 0
    for number in range(250):
        network, target = random_layer(random), get_target(f"DPUCZDX8G_ISA1_{SIZES[number % 8]}")
        if limits.check(network, target):
            refused += 1
            continue
        one, weights = network.layers[1], {}
        if "conv" in one.op:
            (kw, kh), inputs = one.attrs["kernel"], network.layers[0].shape[2]
            shape = (one.shape[2], kh, kw, inputs) if one.op == "conv" else (1, kh, kw, inputs)
            weights = {"it": (np.zeros(shape, np.int8), 4)}
        quantized = QuantizedNetwork(network, {"x": 4, "it": 4}, weights, {}, {"subtract": 0, "divide": 1})
        graph = lower(quantized, target)
        (subgraph,) = graph.subgraphs("DPU")
        generator = Generator(
            machine_for(target.fingerprint, target.name), lower_subgraph(graph, subgraph).job
        )
        assert generator.generate()[-1].name == "END"
    assert 0 < refused < 60


def test_more_than_the_add_instruction_takes():
    shape = (4, 4, 8)
    layers = [Layer("x", "input", [], shape)]
    window = {"kernel": (1, 1), "stride": (1, 1), "pad": (0, 0, 0, 0)}
    layers += [Layer(f"c{i}", "max_pool", ["x"], shape, window) for i in range(5)]
    for count in (4, 5):
        add = Layer("sum", "add", [f"c{i}" for i in range(count)], shape, {"activation": "NONE"})
        found = limits.check(Network("n", [*layers, add]), get_target("DPUCZDX8G_ISA1_B1600"))
        assert [finding.value for finding in found] == ([5] if count == 5 else [])


def test_layers_of_the_cpu_have_no_limits_of_the_dpu():
    layers = [Layer("x", "input", [], (8, 8, 128)), Layer("flat", "float_reshape", ["x"], (8192,))]
    layers[1].attrs = {"target": (8192,)}
    layers.append(Layer("joined", "float_concat", ["flat", "flat"], (16384,), {"axis": 1}))
    layers.append(Layer("sum", "float_add", ["joined"] * 2, (16384,)))
    assert limits.check(Network("n", layers), get_target("kv260")) == []


def test_a_layer_beyond_the_compiler_goes_to_the_cpu_when_allowed():
    b = Builder((34, 34, 3))
    attrs = {"kernel": (17, 17), "stride": (1, 1), "dilation": (1, 1), "pad": (8,) * 4, "activation": "RELU"}
    wide = b.layer("conv", [b.conv("input", 8)], (34, 34, 6), 4, (6, 17, 17, 8), **attrs)
    pooled = b.pool(wide, kernel=(17, 17))
    network = b.quantized("wide", b.dense(b.flatten(pooled), 5))
    target = get_target("DPUCZDX8G_ISA1_B4096")
    with pytest.raises(UserError, match=r"conv2 \(conv\): kernel width is 17, allowed 1 to 16"):
        compile_native(network, target)
    compiled = compile_native(network, target, on_cpu="allow")
    assert {finding["layer"] for finding in compiled.report["findings"]} == {"conv2"}
    assert compiled.graph.op("conv2").device == "CPU" and compiled.graph.op("conv1").device == "DPU"
    batch = np.random.default_rng(0).integers(-128, 128, (3, 34, 34, 3), np.int8)
    np.testing.assert_array_equal(IsaRunner(compiled.graph).run(batch), Emulator(compiled.graph).run(batch))


@pytest.mark.parametrize(("channels", "fits"), [(16, True), (17, False)])
def test_flattened_maps_are_joined_as_far_as_one_instruction_moves_them(channels, fits):
    b = Builder((16, 16, 3))
    parts = [b.flatten(b.conv("input", n)) for n in (channels, 2)]
    joined = b.layer("concat", parts, (256 * (channels + 2),), 4, axis=1)
    network = b.quantized("joined", b.dense(joined, 3))
    target = get_target("DPUCZDX8G_ISA1_B4096")
    if not fits:
        with pytest.raises(UserError, match=rf"channels of a part is {256 * channels}, allowed at most 4096"):
            compile_native(network, target)
    compiled = compile_native(network, target, on_cpu="allow")
    assert [finding["layer"] for finding in compiled.report["findings"]] == ([] if fits else [joined])
    batch = np.random.default_rng(0).integers(-128, 128, (2, 16, 16, 3), np.int8)
    np.testing.assert_array_equal(IsaRunner(compiled.graph).run(batch), Emulator(compiled.graph).run(batch))
