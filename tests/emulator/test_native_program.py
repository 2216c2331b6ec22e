"""The compiled kernels at the sizes where their loops change, and programs of several operations."""

import functools

import numpy as np
import pytest
from compiled_kernels import need_compiled_kernels
from native_cases import by_oracle, convolution, every_way

from dpuflow.emulator import Emulator, c_kernels, native_program, oracle, random_cases, selfcheck
from dpuflow.emulator.implementations import layers
from dpuflow.emulator.native_program import Node, Program, can_execute
from dpuflow.emulator.operations import (
    Eltwise,
    InsideAverage,
    Nonlinear,
    Pool,
    Resample,
    Slice,
)


@pytest.fixture(autouse=True)
def _compiled():
    need_compiled_kernels()


def check(op, *inputs):
    """The compiled kernels execute the operation, and give the oracle's result."""
    assert can_execute(op, [x.shape for x in inputs])
    assert selfcheck.operation_differences(op, list(inputs)) == []


@pytest.mark.parametrize("channels", [1, 16, 31, 32, 33, 64, 65, 96, 100, 130])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2), (5, 3), (7, 1), (9, 2)])
def test_depthwise_kernels_and_remainders(channels, kernel, stride):
    rng = np.random.default_rng(channels + kernel)
    half = kernel // 2
    shape = (channels, channels)
    op = convolution(rng, shape, (kernel,) * 2, (stride,) * 2, (half, half, half, half - 1), kind="depthwise")
    check(op, random_cases.values(rng, (2, 8, 9, channels)))


@pytest.mark.parametrize("dilation", [(1, 2), (2, 1), (3, 3)])
@pytest.mark.parametrize("kind", ["LEAKYRELU", "HSWISH", "RELU6"])
def test_dilated_depthwise_with_every_kind_of_epilogue(dilation, kind):
    rng = np.random.default_rng(5)
    nonlinear = Nonlinear(kind, 4, 14, 3)
    op = convolution(
        rng, (70, 70), (3, 3), pad=(3, 3, 3, 3), dilation=dilation, kind="depthwise", nonlinear=nonlinear
    )
    check(op, random_cases.values(rng, (2, 9, 20, 70)))


@pytest.mark.parametrize("width", range(1, 17))
@pytest.mark.parametrize("outputs", [7, 33])
def test_convolutions_of_every_width(width, outputs):
    rng = np.random.default_rng(width)
    op = convolution(rng, (outputs, 5), (3, 3), pad=(1, 1, 1, 1))
    check(op, random_cases.values(rng, (2, 5, width, 5)))


@pytest.mark.parametrize("images", [1, 5, 20])
def test_one_window_an_image(images):
    rng = np.random.default_rng(images)
    check(convolution(rng, (40, 9), (6, 5)), random_cases.values(rng, (images, 5, 6, 9)))


def test_groups_are_convolutions_of_slices():
    rng = np.random.default_rng(1)
    op = convolution(rng, (12, 8), (3, 3), pad=(1, 1, 1, 1), group=4, nonlinear=Nonlinear("LEAKYRELU"))
    check(op, random_cases.values(rng, (2, 6, 7, 8)))


@pytest.mark.parametrize(
    "shapes", [((2, 3, 4, 70), (2, 1, 1, 70)), ((2, 3, 4, 5), (2, 3, 4, 1)), ((3, 9), (3, 9))]
)
@pytest.mark.parametrize("kind", ["ADD", "MUL"])
def test_broadcast_elementwise(shapes, kind):
    rng = np.random.default_rng(2)
    check(Eltwise(kind, (5, 4), 4), *(random_cases.values(rng, shape) for shape in shapes))


SIZES = (1000, 3000, 5000, 8000, 12000, 20000, 30000)
WAYS = {
    "blocks of images": {},
    **{
        f"steps above {size} bytes image by image": {"AT_ONCE_BYTES": 4 * size, "BLOCK_BYTES": 1}
        for size in SIZES
    },
    "all steps image by image": {"AT_ONCE_BYTES": 0},
    "all workers on one image": {"WORTH_SHARING": 0, "PART_MICROSECONDS": 0.01, "LARGEST_BLOCK": 1},
}


@functools.cache
def expected_maps(images):
    """`by_oracle` of the test below."""
    nodes, source = every_way(np.random.default_rng(3))
    return by_oracle(nodes, random_cases.values(np.random.default_rng(images), (images, *source[1:])))


@pytest.mark.parametrize("images", [1, 3, 70])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("way", WAYS)
def test_a_program_gives_the_oracles_maps(images, threads, way, monkeypatch):
    """Whatever the number of images and threads, and whether these work on one image or on their own."""
    for name, value in WAYS[way].items():
        monkeypatch.setattr(native_program, name, value)
    nodes, source = every_way(np.random.default_rng(3))
    batch = random_cases.values(np.random.default_rng(images), (images, *source[1:]))
    expected = expected_maps(images)
    for outputs in (["dense"], [node.name for node in nodes]):
        program = Program(nodes, {"image": source}, outputs, threads)
        for _ in range(2):  # an arena that is used again holds other values
            found = program.run({"image": batch})
            assert list(found) == outputs
            for name in outputs:
                np.testing.assert_array_equal(found[name], expected[name], name)


def test_a_constant_is_the_same_for_all_images():
    rng = np.random.default_rng(2)
    fixed, batch = random_cases.values(rng, (1, 3, 1, 5)), random_cases.values(rng, (90, 3, 4, 5))
    op, shape = Eltwise("MUL", (5, 4), 5), (1, 3, 4, 5)
    program = Program([Node("out", ("x", "fixed"), op, shape)], {"x": shape}, ["out"], 2, {"fixed": fixed})
    np.testing.assert_array_equal(program.run({"x": batch})["out"], oracle.apply(op, batch, fixed))


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize("channels", [1, 65])
def test_bilinear_resizing(corners, channels):
    rng = np.random.default_rng(3)
    op = Resample("BILINEAR", (15, 12), 1, align_corners=corners, half_pixel_centers=not corners)
    check(op, random_cases.values(rng, (2, 4, 5, channels)))


@pytest.mark.parametrize("bounds", [(0, 9, 2), (1, 70, 3), (5, 70, 64)])
@pytest.mark.parametrize("shift", [0, -1, 2])
def test_slices_of_every_so_many_channels(bounds, shift):
    op = Slice(((0, 3, 2), (1, 4, 1), bounds), shift)
    check(op, random_cases.values(np.random.default_rng(bounds[1]), (2, 3, 4, 70)))


@pytest.mark.parametrize("shift", [-5, -1, 0, 3])
@pytest.mark.parametrize("kernel", [(1, 1), (1, 2), (3, 3)])
def test_averages_on_a_finer_grid_than_their_input(kernel, shift):
    """Also of windows of one value, whose mean has no bits to shift away."""
    x = random_cases.values(np.random.default_rng(1), (2, 5, 7, 20))
    pad = (kernel[0] - 1, 0, kernel[1] - 1, 0)
    check(InsideAverage(kernel, (1, 1), pad, shift), x)
    check(Pool("AVG", kernel, (2, 1), (0, 0, 0, 0), shift), x)


@pytest.mark.parametrize("x", [np.zeros((2, 4, 4, 8), np.float32), np.zeros((2, 4, 4, 9), np.int8)])
def test_other_arrays_are_refused(x):
    op, shape = convolution(np.random.default_rng(0), (8, 8), (1, 1)), (1, 4, 4, 8)
    program = Program([Node("out", ("in",), op, shape)], {"in": shape}, ["out"])
    with pytest.raises(ValueError, match="'in': int8"):
        program.run({"in": x})
    assert program.run({"in": np.zeros((0, 4, 4, 8), np.int8)})["out"].shape == (0, 4, 4, 8)


def test_only_what_is_wanted_is_computed():
    graph = random_cases.graph(np.random.default_rng(4))
    with Emulator(graph) as emulator:
        batch = random_cases.values(np.random.default_rng(0), (2, *emulator.input.tensor.shape[1:]))
        first = next(op for op in graph.ops if op.type == "conv2d-fix")
        found = emulator.values(batch, [first.name])[first.name]
        np.testing.assert_array_equal(found, emulator.run(batch, dump=True)[first.name])
        (unit,) = emulator._executors["values", first.name]._calls[False].units
        assert [name for name in unit._program.shapes if "conv2d" in name] == [first.name]


def test_maps_that_never_live_together_share_room():
    op, shape, names = convolution(np.random.default_rng(0), (8, 8), (1, 1)), (1, 4, 4, 8), "abcdef"
    nodes = [Node(name, (before,), op, shape) for before, name in zip("i" + names, names, strict=False)]
    for outputs in (["f"], list(names)):
        program = Program(nodes, {"i": shape}, outputs)
        assert program.arena_bytes == program.block * 2 * 4 * 4 * 8


@pytest.mark.parametrize("native", [True, False])
def test_a_range_of_layers_on_given_maps(native, monkeypatch):
    if not native:
        monkeypatch.setattr(c_kernels, "library", lambda: None)
    nodes, _ = every_way(np.random.default_rng(3))
    batch = random_cases.values(np.random.default_rng(8), (4, 9, 11, 6))
    expected = by_oracle(nodes, batch)
    part = [node for node in nodes if node.name in ("outer", "mixed", "gate", "gated")]
    given = {name: expected[name] for name in ("left", "inner", "pooled")}
    run = layers(part, {name: x.shape for name, x in given.items()}, ["mixed", "gated"])
    found = run(given)
    assert {name: x.dtype for name, x in found.items()} == {"mixed": np.int8, "gated": np.int8}
    for name, x in found.items():
        np.testing.assert_array_equal(x, expected[name])


def test_what_runs_on_numpy_is_named(caplog):
    graph = random_cases.graph(np.random.default_rng(4))
    conv = next(op for op in graph.ops if op.type == "conv2d-fix")
    conv.attrs.set("shift_cut", 40, "int32")  # no shift of 32-bit numbers
    Emulator(graph)
    assert f"{conv.name} (conv2d-fix)" in caplog.text and "NumPy" in caplog.text
