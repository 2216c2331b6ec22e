"""Transposed convolutions in machine code: every size, map by map equal to the emulator."""

import numpy as np
import pytest
from quantized_builder import Builder
from test_native_resizing import SIZES, batch

from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.isa.runner import IsaRunner
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.emulator import Emulator
from dpuflow.network.dilation import without_idle_taps
from dpuflow.quantize.engine import run_integer


def transposed(b, source, random, activation, depthwise):
    """A transposed convolution of random kernel, stride and cut; kernels smaller than their stride, too."""
    height, width, channels = b.shape(source)
    kernel, stride = (tuple(int(n) for n in random.integers(1, most, 2)) for most in (6, 4))
    pad = tuple(int(random.integers(0, kernel[side // 2])) for side in range(4))
    size = [
        (length - 1) * stride[axis] + kernel[axis] - pad[2 * axis] - pad[2 * axis + 1]
        for axis, length in ((1, height), (0, width))
    ]
    if min(size) < 1:
        return source
    outputs = channels if depthwise else int(random.choice([4, 17, 40]))
    weights = (1 if depthwise else outputs, *kernel[::-1], channels)
    kind = "transposed_depthwise_conv" if depthwise else "transposed_conv"
    attrs = {"kernel": kernel, "stride": stride, "dilation": (1, 1), "pad": pad, "activation": activation}
    return b.layer(kind, [source], (*size, outputs), 4, weights, **attrs)


def random_network(seed):
    """One to three transposed convolutions, with ordinary ones in front and between."""
    random = np.random.default_rng(seed)
    height, width = (int(n) for n in random.integers(2, 9, 2))
    b = Builder((height, width, int(random.choice([3, 17]))), seed)
    x = b.conv("input", int(random.choice([5, 16, 33]))) if random.random() < 0.7 else "input"
    for _ in range(int(random.integers(1, 4))):
        depthwise = bool(random.random() < 0.4)
        activations = ["NONE", "RELU", "RELU6"] + ["LEAKYRELU"] * (not depthwise)
        x = transposed(b, x, random, str(random.choice(activations)), depthwise)
        if random.random() < 0.5:
            x = b.conv(x, 9)
    x = b.pool(x, "max_pool", (-(-b.shape(x)[1] // 8), -(-b.shape(x)[0] // 8)))
    return b.quantized(f"transposed{seed}", b.dense(b.flatten(x), 10))


@pytest.mark.parametrize(("size", "seed"), [(size, seed) for seed, size in enumerate(SIZES)])
def test_random_networks_on_every_size(size, seed):
    compiled = compile_native(random_network(seed), get_target(f"DPUCZDX8G_ISA1_{size}"))  # map by map
    images = batch(compiled.graph)
    expected = Emulator(compiled.graph).run(images)
    np.testing.assert_array_equal(IsaRunner(compiled.graph).run(images), expected)
    np.testing.assert_array_equal(Emulator(compiled.quantized_graph).run(images), expected)


def test_no_zero_is_multiplied():
    """4x4 by 2: four phases of 2x2 taps, so the cycles of 2x2 on the output's pixels."""
    b = Builder((8, 8, 16), 1)
    attrs = {"kernel": (4, 4), "stride": (2, 2), "dilation": (1, 1), "pad": (1, 1, 1, 1)}
    x = b.layer("transposed_conv", ["input"], (16, 16, 16), 4, (16, 4, 4, 16), activation="RELU", **attrs)
    quantized = b.quantized("phases", b.dense(b.flatten(x), 3))
    compiled = compile_native(quantized, get_target("DPUCZDX8G_ISA1_B4096"))
    steps = next(iter(IsaRunner(compiled.graph).simulators.values())).steps
    inits = [s.instruction for s in steps if s.instruction.name == "CONVINIT"]
    assert {(init["kernel_h"], init["kernel_w"]) for init in inits[:-1]} == {(2, 2)}
    row = next(row for row in compiled.report["estimate"]["layers"] if row["name"] == x)
    assert row["cycles"] == 2 * 16 * 4  # two bands of eight rows, four taps a pixel


def dilated_network(seed):
    """Dilated convolutions of all kinds, most with padding that keeps the size."""
    random = np.random.default_rng(seed)
    height, width = (int(n) for n in random.integers(5, 20, 2))
    b = Builder((height, width, int(random.choice([3, 17]))), seed)
    x = b.conv("input", 16) if random.random() < 0.6 else "input"
    for _ in range(2):
        height, width, channels = b.shape(x)
        kernel, dilation = (
            tuple(int(n) for n in random.integers(1, 4, 2)),
            tuple(int(n) for n in random.integers(1, 5, 2)),
        )
        reach = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
        pad = (reach[0] // 2, reach[0] - reach[0] // 2, reach[1] // 2, reach[1] - reach[1] // 2)
        if random.random() < 0.3 and width > reach[0] and height > reach[1]:
            pad = tuple(int(random.integers(0, reach[side // 2] + 1)) for side in range(4))
        size = (height + pad[2] + pad[3] - reach[1], width + pad[0] + pad[1] - reach[0])
        outputs = int(random.choice([5, 20]))
        attrs = {"kernel": kernel, "stride": (1, 1), "dilation": dilation, "pad": pad, "activation": "RELU"}
        x = b.layer("conv", [x], (*size, outputs), 4, (outputs, *kernel[::-1], channels), **attrs)
    x = b.pool(x, "max_pool", (-(-b.shape(x)[1] // 8), -(-b.shape(x)[0] // 8)))
    return b.quantized(f"dilated{seed}", b.dense(b.flatten(x), 10))


@pytest.mark.parametrize(("size", "seed"), [(size, seed) for seed, size in enumerate(SIZES)])
def test_dilated_convolutions_on_every_size(size, seed):
    compiled = compile_native(dilated_network(seed), get_target(f"DPUCZDX8G_ISA1_{size}"))  # map by map
    images = batch(compiled.graph)
    expected = Emulator(compiled.graph).run(images)
    np.testing.assert_array_equal(IsaRunner(compiled.graph).run(images), expected)


def test_a_dilated_kernel_that_would_not_fit_with_its_zeros():
    """3x3 by 6 on 256 channels: 169 x 16 entries of a bank written out, 9 x 16 in phases."""
    b = Builder((16, 16, 8), 1)
    stem = b.conv("input", 256)
    attrs = {"kernel": (3, 3), "stride": (1, 1), "dilation": (6, 6), "pad": (6,) * 4, "activation": "RELU"}
    wide = b.layer("conv", [stem], (16, 16, 16), 4, (16, 3, 3, 256), **attrs)
    quantized = b.quantized("wide", b.dense(b.flatten(b.pool(wide)), 3))
    compiled = compile_native(quantized, get_target("DPUCZDX8G_ISA1_B4096"))
    assert compiled.graph.op(wide).attr("dilation") == [6, 6]
    row = next(row for row in compiled.report["verification"]["layers"] if row["layer"] == wide)
    assert row["reached"]
    # each of 36 phases loads the weights of 16 channels whole: by rows of taps they alone were 36 x 16 x 3
    (program,) = compiled.report["programs"]
    assert program["instructions"]["LOAD"] < 36 * 16 * 2


IDLE = {  # map (H, W), kernel (w, h), dilation, stride, pad -> kernel, dilation and pad that are left
    "the middle alone": ((9, 14), (3, 3), (18, 18), (1, 1), (18,) * 4, (1, 1), (1, 1), (0,) * 4),
    "rows": ((9, 24), (3, 3), (6, 12), (1, 1), (6, 6, 12, 12), (3, 1), (6, 1), (6, 6, 0, 0)),
    "a stride beside it": ((8, 10), (3, 3), (12, 9), (2, 1), (12, 11, 9, 9), (2, 1), (12, 1), (0, 11, 0, 0)),
    "windows of padding": ((7, 7), (2, 2), (9, 8), (1, 1), (9, 1, 8, 0), (2, 1), (9, 1), (9, 1, 0, 0)),
    "nothing before the map": ((7, 30), (3, 3), (7, 9), (1, 1), (0, 0, 9, 9), (3, 1), (7, 1), (0,) * 4),
}


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("case", IDLE)
def test_taps_that_read_padding_alone_are_left_out(case, depthwise):
    (height, width), kernel, dilation, stride, pad, *left = IDLE[case]
    b = Builder((height, width, 3), 1)
    stem = b.conv("input", 16)
    attrs = {"kernel": kernel, "stride": stride, "dilation": dilation, "pad": pad, "activation": "RELU"}
    size = [
        (length + before + after - (k - 1) * d - 1) // s + 1
        for length, k, d, s, (before, after) in zip(
            (height, width), kernel[::-1], dilation[::-1], stride[::-1], (pad[2:], pad[:2]), strict=True
        )
    ]
    op, outputs = ("depthwise_conv", 16) if depthwise else ("conv", 20)
    shape = (1 if depthwise else outputs, *kernel[::-1], 16)
    name = b.layer(op, [stem], (*size, outputs), 4, shape, **attrs)
    quantized = b.quantized("idle", b.dense(b.flatten(name), 5))
    small = without_idle_taps(quantized)
    assert [small.network[name].attrs[key] for key in ("kernel", "dilation", "pad")] == left
    assert without_idle_taps(small) is small
    compiled = compile_native(quantized, get_target("DPUCZDX8G_ISA1_B1024"))
    images = batch(compiled.graph)
    exact = run_integer(quantized, images.astype(np.float32), [quantized.network.layers[-1].name])
    (expected,) = exact.values()
    np.testing.assert_array_equal(IsaRunner(compiled.graph).run(images), expected)
    assert len(np.unique(expected)) > 5


def test_what_the_cpu_computes_keeps_its_dilation():
    """3x3 by 12 on 176 channels: no phases for a B512, and 25x25 taps are more than its engine has."""
    b = Builder((14, 14, 8), 1)
    stem = b.conv("input", 176)
    attrs = {"kernel": (3, 3), "stride": (1, 1), "dilation": (12, 12), "pad": (12,) * 4, "activation": "RELU"}
    wide = b.layer("conv", [stem], (14, 14, 8), 4, (8, 3, 3, 176), **attrs)
    quantized = b.quantized("wide", b.dense(b.flatten(b.pool(wide)), 3))
    compiled = compile_native(quantized, get_target("DPUCZDX8G_ISA1_B512"), on_cpu="allow")
    left = compiled.graph.op(wide)
    assert (left.attr("kernel"), left.attr("dilation")) == ([3, 3], [12, 12])
    images = batch(compiled.graph)
    expected = run_integer(quantized, images.astype(np.float32), [wide])[wide]
    np.testing.assert_array_equal(Emulator(compiled.graph).run(images, dump=True)[wide], expected)
