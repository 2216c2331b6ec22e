"""Each limit: a layer on it passes, a layer beyond it is found with reason and remedy."""

import logging

import pytest

from dpuflow.base.errors import UserError
from dpuflow.compiler.target_check import check, enforce
from dpuflow.device.targets import get_target
from dpuflow.network import Layer, Network, QuantizedNetwork

B4096 = get_target("DPUCZDX8G_ISA1_B4096")
B512 = get_target("DPUCZDX8G_ISA1_B512")


def window(op, in_shape, out_shape, **changed):
    attrs = {"kernel": (3, 3), "stride": (1, 1), "pad": (0, 0, 0, 0)}
    if op.endswith("conv"):
        attrs |= {"dilation": (1, 1), "activation": "RELU"}
    layer = Layer("x", op, ["in"], out_shape, attrs | changed)
    return Network("n", [Layer("in", "input", [], in_shape), layer])


def conv(channels=16, filters=16, **changed):
    return window("conv", (64, 64, channels), (62, 62, filters), **changed)


def dense(shape, units=10):
    flat = shape[0] * shape[1] * shape[2]
    layers = [
        Layer("in", "input", [], shape),
        Layer("f", "flatten", ["in"], (flat,)),
        Layer("d", "dense", ["f"], (units,), {"activation": "NONE"}),
    ]
    return Network("n", layers)


def depthwise(**changed):
    return window("depthwise_conv", (64, 64, 16), (62, 62, 16), **changed)


def pool(op="max_pool", **changed):
    return window(op, (512, 512, 16), (256, 256, 16), **changed)


ALLOWED = {
    "kernel 16": conv(kernel=(16, 16)),
    "stride 8": conv(stride=(8, 8)),
    "same padding": conv(pad=(1, 1, 1, 1)),
    "dilated padding": conv(dilation=(2, 2), pad=(4, 4, 4, 4)),
    "2048 weight entries": conv(channels=128, kernel=(16, 16)),
    "4096 channels": conv(channels=4096, filters=4096, kernel=(2, 4)),
    "leaky relu": conv(activation="LEAKYRELU", alpha=0.1),
    "dense 16 x 16": dense((16, 16, 8)),
    "dense 17 x 4": dense((17, 4, 1)),  # read as 1 x 1 x 68
    "depthwise 32 x 64": depthwise(kernel=(32, 64)),
    "depthwise relu6": depthwise(activation="RELU6"),
    "pool 256": pool(kernel=(256, 256), stride=(256, 256)),
    "pool padding": pool(pad=(15, 255, 15, 255)),
    "average pool": pool("avg_pool"),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_on_the_limit(name):
    assert check(ALLOWED[name], B4096) == []


BEYOND = [
    (conv(kernel=(17, 3)), "kernel width", 17, "1 to 16"),
    (conv(kernel=(3, 17)), "kernel height", 17, "1 to 16"),
    (conv(stride=(9, 1)), "stride width", 9, "1 to 8"),
    (conv(pad=(3, 0, 0, 0)), "padding left", 3, "0 to 2"),
    (conv(pad=(0, 0, 0, 3)), "padding bottom", 3, "0 to 2"),
    (
        conv(channels=129, kernel=(16, 16)),
        "kernel_w * kernel_h * ceil(input channels / parallelism)",
        2304,
        "at most 2048",
    ),
    (conv(channels=4097, kernel=(1, 1)), "input channels", 4097, "at most 4096"),
    (conv(filters=4097), "output channels", 4097, "at most 4096"),
    (conv(channels=2049, kernel=(1, 1), dilation=(1, 2)), "dilation * input channels", 4098, "at most 4096"),
    (conv(activation="HSWISH"), "activation", "HSWISH", "NONE or RELU or RELU6 or LEAKYRELU"),
    (
        conv(activation="LEAKYRELU", alpha=0.3),
        "leaky slope",
        0.3,
        "0.1015625 (26/256; 0.1 is taken for it)",
    ),
    (dense((17, 1, 269)), "kernel height", 17, "1 to 16"),  # 17 and 269 are primes, 4573 channels too many
    (
        dense((16, 16, 129)),
        "kernel_w * kernel_h * ceil(input channels / parallelism)",
        2304,
        "at most 2048",
    ),
    (dense((1, 1, 16), 5000), "output channels", 5000, "at most 4096"),
    (depthwise(kernel=(257, 1)), "kernel width", 257, "1 to 256"),
    (depthwise(kernel=(64, 64)), "kernel_w * kernel_h", 4096, "at most 2048"),
    (depthwise(activation="LEAKYRELU"), "activation", "LEAKYRELU", "NONE or RELU or RELU6"),
    (depthwise(dilation=(2, 2)), "dilation", (2, 2), "1"),
    (window("depthwise_conv", (64, 64, 8), (62, 62, 16)), "channel multiplier", 2.0, "1"),
    (pool(kernel=(1, 257)), "kernel height", 257, "1 to 256"),
    (pool("avg_pool", stride=(300, 1)), "stride width", 300, "1 to 256"),
    (pool(pad=(16, 0, 0, 0)), "padding left", 16, "0 to 15"),
    (pool(pad=(0, 256, 0, 0)), "padding right", 256, "0 to 255"),
]


@pytest.mark.parametrize(("network", "limit", "value", "allowed"), BEYOND)
def test_beyond_the_limit(network, limit, value, allowed):
    (finding,) = check(network, B4096)
    assert (finding.limit, finding.value, finding.allowed) == (limit, value, allowed)
    assert finding.layer == network.layers[-1].name
    assert finding.reason and finding.remedy


def test_a_smaller_dpu_has_narrower_limits():
    network = conv(channels=100, kernel=(13, 13))  # 13 * 13 * ceil(100 / 8) = 2197
    assert check(network, B4096) == []
    assert [finding.value for finding in check(network, B512)] == [2197]
    assert [finding.allowed for finding in check(conv(filters=3000), B512)] == ["at most 2048"]


def test_add_softmax_and_standalone_leaky_relu():
    layers = [
        Layer("in", "input", [], (4, 4, 8)),
        Layer("leaky", "leaky_relu", ["in"], (4, 4, 8), {"alpha": 1.2}),
        Layer("soft", "softmax", ["leaky"], (4, 4, 8)),
        Layer("sum", "add", ["soft", "in"], (4, 4, 8), {"activation": "RELU6"}),
        Layer("end", "softmax", ["sum"], (4, 4, 8)),
    ]
    found = [(finding.layer, finding.limit) for finding in check(Network("n", layers), B4096)]
    assert found == [("leaky", "leaky slope"), ("sum", "activation")]
    layers[3].inputs = ["soft", "small"]
    layers.insert(3, Layer("small", "max_pool", ["in"], (2, 2, 8), pool().layers[1].attrs))
    assert "input shapes" in {finding.limit for finding in check(Network("n", layers), B4096)}


def test_a_quantized_network_is_checked_too():
    quantized = QuantizedNetwork(conv(kernel=(17, 17)), {}, {}, {}, {})
    assert len(check(quantized, B4096)) == 2


def test_policy(caplog):
    findings = check(conv(kernel=(17, 3)), B4096)
    with pytest.raises(UserError, match="1 layer cannot run on DPUCZDX8G_ISA1_B4096") as error:
        enforce(findings, "error", B4096)
    assert "kernel width is 17, allowed 1 to 16" in str(error.value)
    assert "remedy: use a smaller kernel" in str(error.value)
    logger = logging.getLogger("dpuflow")
    logger.addHandler(caplog.handler)
    try:
        enforce(findings, "allow", B4096)
        assert caplog.text == ""
        enforce(findings, "warn", B4096)
    finally:
        logger.removeHandler(caplog.handler)
    assert "will run on the CPU" in caplog.text and "kernel width" in caplog.text
    enforce([], "error", B4096)
    with pytest.raises(UserError, match="on_cpu"):
        enforce([], "ignore", B4096)
