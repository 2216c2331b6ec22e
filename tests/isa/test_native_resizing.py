"""Resizing in machine code: random networks, every size, map by map equal to the emulator."""

import numpy as np
import pytest
from quantized_builder import Builder

from dpuflow.base.errors import UserError
from dpuflow.compiler.target_check import check
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.isa.runner import IsaRunner
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.emulator import Emulator

SIZES = ("B512", "B800", "B1024", "B1152", "B1600", "B2304", "B3136", "B4096")


def resized(b, source, kind, factor, grid="half_pixel"):
    """A resizing layer."""
    height, width, channels = b.shape(source)
    if kind == "downsample":
        shape = (-(-height // factor[1]), -(-width // factor[0]), channels)
        return b.layer(kind, [source], shape, factor=factor)
    shape = (height * factor[1], width * factor[0], channels)
    if kind == "upsample":
        return b.layer(kind, [source], shape, factor=factor)
    return b.layer(kind, [source], shape, size=(shape[1], shape[0]), grid=grid)


def random_network(seed):
    """Convolutions with resizing between, in front of a concat, at the input and at the end."""
    random = np.random.default_rng(seed)
    b = Builder(
        (int(random.integers(3, 12)), int(random.integers(3, 12)), int(random.choice([1, 3, 17]))), seed
    )
    x = "input" if random.random() < 0.3 else b.conv("input", int(random.choice([5, 16, 40])))
    grow = [("upsample", (2, 2)), ("upsample", (3, 1)), ("upsample", (1, 2)), ("resize_bilinear", (2, 2))]
    grow += [("resize_bilinear", (4, 2)), ("resize_bilinear", (1, 4))]
    for _ in range(int(random.integers(1, 3))):
        kind, factor = grow[random.integers(len(grow))]
        up = resized(b, x, kind, factor, str(random.choice(["half_pixel", "asymmetric"])))
        side = b.conv(up, 7)
        x = b.layer("concat", [up, side], (*b.shape(up)[:2], b.shape(up)[2] + 7), axis=3)
        b.fix_points[side] = b.fix_points[x] = b.fix_points[up]
        if random.random() < 0.6:
            x = resized(b, x, "downsample", (int(random.choice([1, 2])), int(random.choice([2, 3]))))
    x = b.conv(x, 6) if random.random() < 0.7 else x
    while max(b.shape(x)[:2]) > 16:
        x = resized(b, x, "downsample", (2, 2))
    return b.quantized(f"resized{seed}", b.dense(b.flatten(x), 10))


def batch(graph, count=2):
    """Random images."""
    shape = Emulator(graph).input.tensor.shape[1:]
    return np.random.default_rng(1).integers(-128, 128, (count, *shape), np.int8)


@pytest.mark.parametrize(("size", "seed"), [(size, seed) for seed, size in enumerate(SIZES)])
def test_random_networks_on_every_size(size, seed):
    quantized = random_network(seed)
    compiled = compile_native(quantized, get_target(f"DPUCZDX8G_ISA1_{size}"))  # verified map by map
    images = batch(compiled.graph)
    expected = Emulator(compiled.graph).run(images)
    np.testing.assert_array_equal(IsaRunner(compiled.graph).run(images), expected)
    np.testing.assert_array_equal(Emulator(compiled.quantized_graph).run(images), expected)


@pytest.mark.parametrize(
    ("factor", "grid", "exact"),
    [
        ((2, 2), "half_pixel", True),
        ((4, 4), "half_pixel", True),
        ((8, 8), "half_pixel", False),
        ((2, 8), "half_pixel", True),
        ((8, 8), "asymmetric", True),
        ((16, 16), "asymmetric", False),
        ((3, 3), "half_pixel", False),
        ((2, 2), "align_corners", False),
    ],
)
def test_bilinear_factors_that_int8_weights_hold(factor, grid, exact):
    b = Builder((4, 3, 20), 1)
    resized(b, "input", "resize_bilinear", factor, grid)
    up = b.layers[-1].name
    quantized = b.quantized("bilinear", b.dense(b.flatten(up), 3))
    target = get_target("DPUCZDX8G_ISA1_B1600")
    findings = [finding for finding in check(quantized, target) if finding.layer == up]
    assert bool(findings) != exact
    if exact:
        compiled = compile_native(quantized, target)
        images = batch(compiled.graph)
        np.testing.assert_array_equal(
            IsaRunner(compiled.graph).run(images), Emulator(compiled.graph).run(images)
        )
    else:
        with pytest.raises(UserError, match=r"resize_bilinear1 .*bilinear resizing is 4 x 3 to"):
            compile_native(quantized, target)


def test_an_upsample_is_saves_alone_and_a_downsample_loads_what_it_needs():
    b = Builder((8, 8, 16), 2)
    up = resized(b, b.conv("input", 16), "upsample", (2, 2))
    down = resized(b, up, "downsample", (4, 4))
    quantized = b.quantized("moves", b.dense(b.flatten(down), 3))
    compiled = compile_native(quantized, get_target("DPUCZDX8G_ISA1_B4096"))
    steps = next(iter(IsaRunner(compiled.graph).simulators.values())).steps
    saves = [step.instruction for step in steps if step.instruction.name == "SAVE"]
    twice = [save for save in saves if save["jump_write"] == 32]
    assert len(twice) == 8 * 4 and {save["length"] for save in twice} == {8}
    loads = [step.instruction for step in steps if step.instruction.name == "LOAD"]
    spread = [load for load in loads if load["jump_read"] == 64]
    assert len(spread) == 4 and {load["length"] for load in spread} == {4}
