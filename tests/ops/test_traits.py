"""What a class says of itself holds for what it computes: other rooms rely on it."""

import ast
import importlib

import numpy as np
import pytest
from cases import random_case
from naive import average_pool_factor, power

from dpuflow.ops import OPERATORS, kinds, make, registry
from dpuflow.ops.operator import Operator
from tests.made_up_operator import KIND, Negate

QUANTIZED = kinds(lambda o: o.survives_folding and o.quantized and o.kind != "input")
SEEDS = range(10)


def trait(name):
    """Kinds of quantized operators that have it."""
    return [kind for kind in QUANTIZED if getattr(OPERATORS[kind], name)]


def cases(kind, salt):
    """Random cases of a kind."""
    return [random_case(kind, np.random.default_rng([seed, salt])) for seed in SEEDS]


def reals(case, salt=0):
    """Real inputs of a case's shapes."""
    rng = np.random.default_rng(salt)
    return [rng.normal(size=x.shape).astype(np.float32) for x in case.inputs]


@pytest.mark.parametrize("kind", trait("moves_bytes"))
def test_what_moves_bytes_makes_no_new_ones(kind):
    for case in cases(kind, 1):
        case = case.on_one_grid()
        there = set(np.concatenate([x.reshape(-1) for x in case.inputs]).tolist())
        assert set(case.integer().astype(int).reshape(-1).tolist()) <= there
        assert case.unrounded() is None
        assert case.operator.result_range(case.fix_in, case.fix_out) is None
        assert case.operator.largest([1.0]) is None
        assert case.operator.shares_fix_point([x.shape[1:] for x in case.inputs])


def test_only_what_moves_bytes_gives_none_of_them_anew():
    """The trait is not forgotten either: all others make values that no input has."""
    for kind in set(QUANTIZED) - set(trait("moves_bytes")):
        new = 0
        for case in cases(kind, 2):
            there = set(np.concatenate([x.reshape(-1) for x in case.inputs]).tolist())
            new += not set(case.integer().astype(int).reshape(-1).tolist()) <= there
        assert new, kind


@pytest.mark.parametrize("kind", trait("renames"))
def test_what_renames_keeps_all_bytes_in_order(kind):
    for case in cases(kind, 3):
        case = case.on_one_grid()
        np.testing.assert_array_equal(case.integer().reshape(-1), case.inputs[0].reshape(-1))
        assert OPERATORS[kind].moves_bytes


@pytest.mark.parametrize("kind", trait("passes_positive_scale"))
def test_a_positive_scale_passes(kind):
    for case in cases(kind, 4):
        (x,) = reals(case)
        scale = np.linspace(0.25, 3, x.shape[-1], dtype=np.float32)
        out = case.operator.real([x])
        behind = np.tile(scale, out.shape[-1] // len(scale))
        np.testing.assert_allclose(case.operator.real([x * scale]), out * behind, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in QUANTIZED if OPERATORS[kind].arity == (1, 1)])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_affine_step_stands_behind_as_often_as_it_says(kind, sign):
    said = 0
    for case in cases(kind, 5):
        (x,) = reals(case)
        if case.weights is not None:
            continue  # it goes into the weights (`quantize.folding`)
        scale = sign * np.linspace(0.5, 2, x.shape[-1], dtype=np.float32)
        offset = np.linspace(-1, 1, x.shape[-1], dtype=np.float32)
        times = case.operator.times_behind(scale, case.shape)
        if times:
            said += 1
            behind = case.operator.real([x]) * np.tile(scale, times) + np.tile(offset, times)
            np.testing.assert_allclose(case.operator.real([x * scale + offset]), behind, rtol=1e-4, atol=1e-5)
    if kind in ("flatten", "avg_pool") or (kind == "max_pool" and sign > 0):
        assert said


@pytest.mark.parametrize("kind", trait("commutes_with_relu"))
def test_relu_before_is_relu_behind(kind):
    for case in cases(kind, 6):
        inputs = reals(case)
        before = case.operator.real([np.maximum(x, 0) for x in inputs])
        # a window that lies in the padding alone has no largest value
        np.testing.assert_array_equal(before, np.maximum(case.operator.real(inputs), 0))


@pytest.mark.parametrize("kind", trait("weighted"))
def test_the_output_axis_counts_output_channels(kind):
    for case in cases(kind, 7):
        (x,) = reals(case)
        weights = case.weights.astype(np.float32)
        factors = np.linspace(0.5, 2, case.shape[-1], dtype=np.float32)
        scaled = weights * case.operator.per_output(factors, weights)
        out = case.operator.linear(x, weights)
        tolerance = 1e-4 * np.abs(out).max()
        np.testing.assert_allclose(case.operator.linear(x, scaled), out * factors, rtol=1e-4, atol=tolerance)


@pytest.mark.parametrize("kind", [kind for kind in QUANTIZED if not OPERATORS[kind].moves_bytes])
def test_results_stay_in_their_range_and_reach_it(kind):
    if OPERATORS[kind].weighted:
        return  # bounded by their weights (`dpuczdx8g.native.branches`)
    for case in cases(kind, 8):
        least, greatest = case.operator.result_range(case.fix_in, case.fix_out)
        assert least <= case.unrounded().min() and case.unrounded().max() <= greatest
        case.operator = make(kind, {**vars(case.operator), **({"pad": (0,) * 4} if "pool" in kind else {})})
        least, greatest = case.operator.result_range(case.fix_in, case.fix_out)
        for value, end in ((-128, least), (127, greatest)):
            case.inputs = [np.full_like(x, value) for x in case.inputs]
            if kind == "multiply":  # the least of different signs, the greatest of the same
                case.inputs[0] = np.full_like(case.inputs[0], -128)
                end = {-128: greatest, 127: least}[value]
            if len({*case.fix_in}) == 1:  # guard bits cut what is finer
                np.testing.assert_allclose(case.unrounded(), end, rtol=1e-12)


@pytest.mark.parametrize("kind", QUANTIZED)
def test_outputs_are_no_larger_than_they_say(kind):
    for case in cases(kind, 9):
        inputs = reals(case)
        weights, bias = (p if p is None else p.astype(np.float32) for p in (case.weights, case.bias))
        sizes = [float(np.abs(x).max()) for x in inputs]
        largest = case.operator.largest(sizes, weights, bias)
        found = float(np.abs(case.operator.real(inputs, weights, bias)).max())
        assert found <= (max(sizes) if largest is None else largest) * (1 + 1e-5)


def test_halves_of_an_average_are_all_found():
    for case in cases("avg_pool", 10):
        width, height = case.operator.kernel
        multiplier, shift = average_pool_factor(height, width)
        step = multiplier * power(case.fix_out - case.fix_in[0] - shift)
        sums = range(-128 * width * height, 127 * width * height + 1)
        expected = [n for n in sums if (n * step).denominator == 2 and -128 <= n * step < 127]
        assert case.operator.half_sums(case.fix_in, case.fix_out).tolist() == expected
        assert case.operator.rounds_halves(case.fix_in, case.fix_out) == bool(expected)


def test_an_average_over_the_whole_map_alone_is_free():
    pool = make("avg_pool", {"kernel": (5, 3), "stride": (1, 1), "pad": (0,) * 4})
    assert not pool.shares_fix_point([(3, 5, 8)])
    assert pool.shares_fix_point([(5, 3, 8)]) and pool.shares_fix_point([(6, 6, 8)])


@pytest.mark.parametrize("kind", [*OPERATORS, KIND])
def test_every_class_says_what_others_ask(kind):
    """A new operator is held by this as soon as it is defined."""
    operator = Negate if kind == KIND else OPERATORS[kind]
    assert operator.kind == kind and operator.__doc__ and not operator.__abstractmethods__
    least, most = operator.arity
    assert 0 <= least <= most
    assert operator.vendor_aligns in (None, "concat", "pool")
    assert not operator.renames or operator.moves_bytes
    made = operator(*([None] * len(operator.attributes())))
    if kind in QUANTIZED or kind == KIND:
        made = Negate() if kind == KIND else random_case(kind, np.random.default_rng(0)).operator
        fixes = [4] * max(least, 1)
        assert isinstance(made.shifts(fixes, 4), dict)
        if not operator.weighted:
            made.largest([1.0] * len(fixes))
            made.result_range(fixes, 4)
            assert made.rounds_halves(fixes, 4) in (True, False)


def test_what_is_not_said_is_an_error_and_no_default():
    class Silent(Negate):
        """Says how it is computed, and not how large it is."""

        largest, result_range = Operator.largest, Operator.result_range

    for ask in (lambda: Silent().largest([1.0]), lambda: Silent().result_range([4], 4)):
        with pytest.raises(NotImplementedError, match=KIND):
            ask()
    with pytest.raises(NotImplementedError, match="shifts between its inputs"):
        Silent().shifts([4, 5], 4)


# -- the registry ----------------------------------------------------------------------------


def test_a_class_is_registered_by_being_defined(monkeypatch):
    from dpuflow.ops import activation

    monkeypatch.setattr(activation, "Negate", type("Negate", (Negate,), {"kind": KIND}), raising=False)
    assert KIND not in [operator.kind for operator in registry.defined(activation)]  # imported there
    activation.Negate.__module__ = activation.__name__
    assert registry.defined(activation)[-1].kind == KIND


def test_no_module_with_operators_is_forgotten(repo):
    for path in sorted((repo / "dpuflow/ops").glob("*.py")):
        classes = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
        module = importlib.import_module(f"dpuflow.ops.{path.stem}")
        operators = [name for name in classes if "kind" in vars(getattr(module, name))]
        assert not operators or module in registry.MODULES, path.name
        assert [operator.__name__ for operator in registry.defined(module)] == operators


def test_kinds_are_unique():
    found = [operator.kind for module in registry.MODULES for operator in registry.defined(module)]
    assert sorted(found) == sorted(OPERATORS)
