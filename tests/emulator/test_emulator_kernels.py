"""Fast kernels against the oracle: random cases, the bounds of exactness, hand-worked values."""

import numpy as np
import pytest
from compiled_kernels import need_compiled_kernels
from hypothesis import given, settings
from hypothesis import strategies as st
from native_cases import by_oracle, every_way

from dpuflow.emulator import (
    c_kernels,
    kernels,
    native_program,
    native_steps,
    oracle,
    random_cases,
    requantise,
    selfcheck,
)
from dpuflow.emulator.implementations import prepare
from dpuflow.emulator.operations import Concat, Conv, Eltwise, HardSigmoid, Nonlinear, Pool

SEEDS = st.integers(0, 2**32 - 1)


def dense(weights, bias=None, shift_cut=0, shift_bias=0, kind="NONE", fix_out=0):
    """A 1x1 convolution from a [OC, IC] list."""
    weights = np.array(weights, np.int8)
    return Conv(
        kind="conv2d",
        weights=weights.reshape(weights.shape[0], 1, 1, -1),
        bias=None if bias is None else np.array(bias, np.int8),
        stride=(1, 1),
        dilation=(1, 1),
        pad=(0, 0, 0, 0),
        shift_cut=shift_cut,
        shift_bias=shift_bias,
        fix_out=fix_out,
        nonlinear=Nonlinear(kind),
    )


def image(*pixels):
    """int8 (1, 1, W, C) from lists of channels."""
    return np.array(pixels, np.int8).reshape(1, 1, len(pixels), -1)


def results(op, *inputs):
    """{backend: result} of every implementation here."""
    found = {"oracle": oracle.apply(op, *inputs)}
    for backend in selfcheck.backends():
        kernel = prepare(op, [x.shape for x in inputs], native=backend == "native")
        found[backend] = kernel(list(inputs), kernels.Workspace()).astype(np.int64)
    return found


def assert_all(op, inputs, expected):
    """Every implementation gives the flat list `expected`."""
    for backend, result in results(op, *inputs).items():
        assert result.reshape(-1).tolist() == list(expected), backend


@settings(max_examples=300)
@given(kind=st.sampled_from(random_cases.KINDS), seed=SEEDS)
def test_random_operations_equal_the_oracle(kind, seed):
    _, op, inputs = random_cases.operation(np.random.default_rng(seed), kind)
    assert selfcheck.operation_differences(op, inputs) == []


@settings(max_examples=150)
@given(
    weights=st.lists(st.integers(-128, 127), min_size=1, max_size=8),
    x=st.lists(st.integers(-128, 127), min_size=8, max_size=8),
    bias=st.none() | st.integers(-128, 127),
    shift_cut=st.integers(-4, 18),
    shift_bias=st.integers(-12, 18),
    kind=st.sampled_from(["NONE", "RELU", "RELU6", "LEAKYRELU"]),
    fix_out=st.integers(3, 6),
)
def test_requantisation_equals_the_formula_in_fractions(
    weights, x, bias, shift_cut, shift_bias, kind, fix_out
):
    from fractions import Fraction
    from math import floor

    value = Fraction(sum(w * v for w, v in zip(weights, x, strict=False)))
    value += Fraction(bias or 0) * Fraction(2) ** shift_bias
    value /= Fraction(2) ** shift_cut
    if kind == "LEAKYRELU" and value < 0:
        value *= Fraction(26, 256)
    if kind in ("RELU", "RELU6"):
        value = max(value, Fraction(0))
    if kind == "RELU6" and fix_out <= 4:
        value = min(value, Fraction(96))
    expected = max(-128, min(127, floor(value + Fraction(1, 2))))
    op = dense([weights], None if bias is None else [bias], shift_cut, shift_bias, kind, fix_out)
    assert_all(op, [image(x[: len(weights)])], [expected])


@pytest.mark.parametrize(
    ("acc", "shift_cut", "expected"),
    [
        (3, 1, 2),
        (-3, 1, -1),
        (-5, 1, -2),
        (5, 1, 3),
        (127, 0, 127),
        (-128, 0, -128),
        (1, -7, 127),
        (-1, -7, -128),
    ],
)
def test_halves_go_up_and_results_saturate(acc, shift_cut, expected):
    assert_all(dense([[1]], shift_cut=shift_cut), [image([acc])], [expected])


def test_a_half_step_of_bias_is_kept():
    # acc 0, bias 1 * 2**-1 = 1/2 at shift_cut 0: 1/2 + 1/2 -> 1; below a half step nothing is left
    assert_all(dense([[0]], [1], 0, -1), [image([0])], [1])
    assert_all(dense([[0]], [1], 0, -2), [image([0])], [0])
    assert_all(dense([[0]], [16], 0, -5), [image([0])], [1])


def test_relu6_clamps_at_96_up_to_fix_point_4():
    for fix_out, expected in ((4, 96), (5, 127)):
        assert_all(dense([[127]], kind="RELU6", fix_out=fix_out), [image([127])], [expected])


def test_leaky_relu_slope_is_26_of_256_before_rounding():
    # -10 * 26 / 256 = -1.0156 -> -1; -15 -> -1.52 -> -2
    assert_all(dense([[1]], kind="LEAKYRELU"), [image([-10], [-15], [10])], [-1, -2, 10])


def test_add_floors_its_inputs_at_seven_guard_bits():
    # fix 0 and 9: 1 * 2**(7 - 9) floors to 0, -1 * 2**(7 - 9) to -1 of 128 steps
    op = Eltwise("ADD", (0, 9), 0)
    assert_all(op, [image([5], [5]), image([1], [-1])], [5, 5])
    op = Eltwise("ADD", (0, 9), 7)
    assert_all(op, [image([0], [0]), image([1], [-1])], [0, -1])


def test_average_of_three_by_three_is_seven_sixtyfourths():
    op = Pool("AVG", (3, 3), (1, 1), (0, 0, 0, 0), 0)
    assert_all(op, [np.full((1, 3, 3, 1), 100, np.int8)], [98])  # 900 * 7 / 64 = 98.4


def test_max_pool_of_negative_values_is_not_zero():
    op = Pool("MAX", (2, 2), (2, 2), (1, 0, 1, 0), 0)
    assert_all(op, [np.full((1, 3, 3, 1), -7, np.int8)], [-7] * 4)


def test_hard_sigmoid_hand_worked():
    # fix_in 2, fix_out 7: q = 12 is 3.0 -> 1.0 saturates; 0 -> 1/2 = 64; -12 -> 0
    assert_all(HardSigmoid(2, 9), [image([12], [0], [-12], [-128])], [127, 64, 0, 0])


@pytest.mark.parametrize(("channels", "dtype"), [(1015, "float32"), (1016, "float64"), (1100, "float64")])
def test_the_extreme_sum_chooses_a_type_that_holds_it(channels, dtype):
    # 128 * 128 per channel, the rounding half 2**17 and the bias: 2**24 is reached at 1016 channels
    op = dense(np.full((2, channels), -128), [1, -1], shift_cut=18, shift_bias=0)
    shape = (1, 1, 1, channels)
    assert prepare(op, [shape]).dtype == np.dtype(dtype)
    x = np.full(shape, -128, np.int8)
    assert_all(op, [x], [(channels * 2**14 + b + 2**17) >> 18 for b in (1, -1)])


def test_a_sum_whose_last_bit_decides_beyond_float32():
    # 1032 * 2**14 = 64.5 * 2**18 would round up to 65; one less must give 64
    weights, x = np.full((1, 1033), -128), np.full(1033, -128)
    weights[0, 1032], x[1032] = 1, -1
    exact = 1032 * 2**14 - 1
    assert np.float32(exact) == exact + 1
    assert_all(dense(weights, shift_cut=18), [image(x)], [64])


@pytest.mark.parametrize("shift_cut", [-600, -62, -40, -9, 31, 60, 64, 90, 700])
@pytest.mark.parametrize("shift_bias", [-5, 0, 40, 300])
@pytest.mark.parametrize("kind", ["NONE", "RELU", "LEAKYRELU"])
def test_absurd_shifts_stay_exact(shift_cut, shift_bias, kind):
    rng = np.random.default_rng(3)
    op = dense(rng.integers(-128, 128, (3, 5)), [-128, 0, 127], shift_cut, shift_bias, kind)
    x = rng.integers(-128, 128, (2, 2, 2, 5)).astype(np.int8)
    found = results(op, x)
    for result in found.values():
        np.testing.assert_array_equal(result, found["oracle"])


def test_requantise_refuses_what_no_type_holds():
    with pytest.raises(requantise.OutOfRangeError):
        requantise.Requantise([2**60], 0, Nonlinear(), 0)


SMALLER_PROCESSORS = {"AVX-VNNI": ["-mno-avx512f"], "AVX2": ["-mno-avx512f", "-mno-avxvnni"]}


@pytest.fixture(params=SMALLER_PROCESSORS)
def smaller_processor(request, monkeypatch, tmp_path):
    """The native kernels as compiled on a processor without this one's widest instructions."""
    monkeypatch.setattr(c_kernels, "FLAGS", (*c_kernels.FLAGS, *SMALLER_PROCESSORS[request.param]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    c_kernels.library.cache_clear()
    need_compiled_kernels()
    if c_kernels.instructions() != request.param:
        c_kernels.library.cache_clear()
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    c_kernels.library.cache_clear()


def test_kernels_of_smaller_processors_equal_the_oracle(smaller_processor, caplog):
    c_kernels.library.cache_clear()
    with caplog.at_level("INFO", "dpuflow"):
        c_kernels.library()
    assert (c_kernels.NO_DOT_PRODUCTS in caplog.text) == (smaller_processor == "AVX2")
    used = set()
    for seed in range(40):
        for kind in random_cases.KINDS:
            _, op, inputs = random_cases.operation(np.random.default_rng(seed), kind)
            used.add(type(prepare(op, [x.shape for x in inputs], native=True)).__name__)
            assert selfcheck.operation_differences(op, inputs) == [], seed
    assert "NativeKernel" in used
    nodes, shape = every_way(np.random.default_rng(3))
    batch = random_cases.values(np.random.default_rng(4), (5, *shape[1:]))
    names = [node.name for node in nodes]
    found = native_program.Program(nodes, {"image": shape}, names, 2).run({"image": batch})
    for name, expected in by_oracle(nodes, batch).items():
        if name in names:
            np.testing.assert_array_equal(found[name], expected, name)


@pytest.mark.parametrize("channels", [1, 15, 16, 17, 31, 32, 33, 48, 63, 100])
@pytest.mark.parametrize("kernel", [(2, 2), (3, 2)])
def test_max_pool_of_every_remainder_of_the_vectors(channels, kernel):
    rng = np.random.default_rng(channels)
    op = Pool("MAX", kernel, (2, 1), (0, 1, 1, 0), 0)
    assert selfcheck.operation_differences(op, [random_cases.values(rng, (2, 5, 6, channels))]) == []


def test_native_refuses_sums_beyond_32_bits():
    need_compiled_kernels()
    for channels, fits in ((131071, True), (131072, False)):  # 128 * 128 per channel
        op = dense(np.full((1, channels), -128), shift_cut=0)
        assert native_program.can_execute(op, [(1, 1, 1, channels)]) == fits
        assert_all(op, [np.full((1, 1, 1, channels), 127, np.int8)], [-128])
        assert_all(op, [np.full((1, 1, 1, channels), -128, np.int8)], [127])


@pytest.mark.parametrize("outputs", [1, 15, 16, 17, 31, 33, 64, 65, 130])
@pytest.mark.parametrize("channels", [1, 3, 4, 5])
def test_every_remainder_of_the_native_tiles(outputs, channels):
    rng = np.random.default_rng(outputs * 10 + channels)
    op = Conv(
        "conv2d",
        rng.integers(-128, 128, (outputs, 3, 2, channels)).astype(np.int8),
        rng.integers(-128, 128, outputs).astype(np.int8),
        stride=(1, 2),
        dilation=(2, 1),
        pad=(1, 0, 2, 1),
        shift_cut=9,
        shift_bias=2,
        fix_out=4,
    )
    assert selfcheck.operation_differences(op, [random_cases.values(rng, (3, 5, 7, channels))]) == []


def test_a_wrong_kernel_is_found(monkeypatch):
    """The comparison itself must be able to fail."""
    true_factor = kernels.average_pool_factor
    for module in (kernels, native_steps):
        monkeypatch.setattr(
            module, "average_pool_factor", lambda h, w: (true_factor(h, w)[0] + 1, true_factor(h, w)[1])
        )
    op = Pool("AVG", (3, 3), (1, 1), (0, 0, 0, 0), 0)
    assert selfcheck.operation_differences(op, [np.full((1, 3, 3, 1), 100, np.int8)]) == selfcheck.backends()


def test_a_concat_rounds_halves_up_and_saturates():
    """Two inputs at fix_points 5 and 3, joined at 4: the first is halved, the second doubled."""
    op = Concat(3, (1, -1))
    first, second = image([-3, -1, 1, 3]), image([-128, -63, 63, 64])
    assert_all(op, [first, second], [-1, 0, 1, 2, -128, -126, 126, 127])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Nonlinear("TANH"),
        lambda: dense([[1]], kind="relu"),
        lambda: Pool("MIN", (1, 1), (1, 1), (0,) * 4, 0),
        lambda: Eltwise("SUB", (0, 0), 0),
        lambda: Conv("conv3d", np.ones((1, 1, 1, 1), np.int8), None, (1, 1), (1, 1), (0,) * 4, 0, 0, 0),
    ],
)
def test_a_kind_that_is_not_implemented_cannot_be_described(make):
    """So no implementation's last branch takes it for another one."""
    with pytest.raises(ValueError, match="known are"):
        make()


def test_what_is_no_operation_has_no_kernel():
    for native_ in (False, True):
        with pytest.raises(TypeError, match="no integer operation"):
            prepare("conv", [(1, 1, 1, 1)], native_)
