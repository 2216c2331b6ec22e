"""Output shapes, weights' shapes, work; what no operator may be given."""

import numpy as np
import pytest
from cases import random_case

from dpuflow.ops import OPERATORS, kinds, make

WINDOW = {"kernel": (3, 2), "stride": (2, 1), "pad": (1, 0, 0, 1)}
CONV = {**WINDOW, "dilation": (1, 2), "activation": "NONE"}


@pytest.mark.parametrize(
    ("kind", "attrs", "inputs", "weights", "expected"),
    [
        # width (9 + 1 - 3) // 2 + 1, height (7 + 1 - 3) + 1 with a dilated kernel of 3 rows
        ("conv", CONV, [(7, 9, 4)], (5, 2, 3, 4), (6, 4, 5)),
        ("depthwise_conv", CONV, [(7, 9, 4)], (1, 2, 3, 4), (6, 4, 4)),
        ("max_pool", WINDOW, [(7, 9, 4)], None, (7, 4, 4)),
        ("avg_pool", WINDOW, [(7, 9, 4)], None, (7, 4, 4)),
        ("dense", {"activation": "RELU"}, [(30,)], (10, 30), (10,)),
        ("add", {"activation": "NONE"}, [(7, 9, 4)] * 2, None, (7, 9, 4)),
        ("multiply", {}, [(7, 9, 4)] * 2, None, (7, 9, 4)),
        ("multiply", {}, [(7, 9, 4), (4,)], None, (7, 9, 4)),
        ("multiply", {}, [(1, 1, 4), (7, 9, 4)], None, (7, 9, 4)),
        ("multiply", {}, [(4,), (4,)], None, (4,)),
        ("multiply", {}, [(4,), (1, 1, 4)], None, (1, 1, 4)),
        ("hard_sigmoid", {}, [(7, 9, 4)], None, (7, 9, 4)),
        ("concat", {"axis": 3}, [(7, 9, 4), (7, 9, 1)], None, (7, 9, 5)),
        ("concat", {"axis": 1}, [(4,), (3,)], None, (7,)),
        ("flatten", {}, [(7, 9, 4)], None, (252,)),
        ("relu", {}, [(7, 9, 4)], None, (7, 9, 4)),
        ("softmax", {}, [(10,)], None, (10,)),
    ],
)
def test_output_shapes(kind, attrs, inputs, weights, expected):
    operator = make(kind, attrs)
    operator.check()
    assert operator.output_shape(inputs, weights) == expected


@pytest.mark.parametrize(
    ("kind", "attrs", "inputs", "weights", "message"),
    [
        ("conv", CONV, [(7, 9, 4)], (5, 3, 2, 4), "expected (5, 2, 3, 4)"),
        ("conv", CONV, [(7, 9, 4)], None, "weights None"),
        ("conv", CONV, [(36,)], (5, 2, 3, 4), "on an input (36,)"),
        ("depthwise_conv", CONV, [(7, 9, 4)], (2, 2, 3, 4), "expected (1, 2, 3, 4)"),
        ("max_pool", WINDOW, [(36,)], None, "on an input (36,)"),
        ("dense", {"activation": "NONE"}, [(30,)], (10, 31), "on an input (30,)"),
        ("dense", {"activation": "NONE"}, [(30,)], None, "on an input (30,)"),
        ("add", {"activation": "NONE"}, [(7, 9, 4), (7, 9, 1)], None, "of different inputs"),
        ("multiply", {}, [(7, 9, 4), (7, 9, 1)], None, "multiplies by a map or by (1, 1, channels)"),
        ("multiply", {}, [(7, 9, 4), (1, 9, 4)], None, "multiplies by a map or by (1, 1, channels)"),
        ("multiply", {}, [(4,), (8,)], None, "multiplies by a map or by (1, 1, channels)"),
        ("concat", {"axis": 2}, [(7, 9, 4)] * 2, None, "along axis 2"),
        ("concat", {"axis": 3}, [(7, 9, 4), (7, 8, 4)], None, "along axis 3"),
        ("input", {}, [], None, "given, not computed"),
    ],
)
def test_inputs_that_do_not_fit(kind, attrs, inputs, weights, message):
    with pytest.raises(ValueError) as caught:
        make(kind, attrs).output_shape(inputs, weights)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("conv", {"kernel": (0, 3)}, "kernel (0, 3): expected whole numbers of 1"),
        ("conv", {"kernel": (3, 3, 3)}, "kernel (3, 3, 3): expected 2 numbers"),
        ("conv", {"kernel": [3, 3]}, "kernel [3, 3]: expected 2 numbers"),
        ("conv", {"stride": (1, 0.5)}, "stride (1, 0.5): expected whole numbers"),
        ("conv", {"stride": (True, 1)}, "expected whole numbers"),
        ("conv", {"dilation": (0, 1)}, "dilation (0, 1)"),
        ("conv", {"pad": (0, 0, 0, 256)}, "expected whole numbers of 0 to 255"),
        ("conv", {"pad": (0, -1, 0, 0)}, "expected whole numbers of 0 to 255"),
        ("conv", {"activation": "TANH"}, "activation 'TANH'"),
        ("depthwise_conv", {"activation": "relu"}, "activation 'relu'"),
        ("depthwise_conv", {"pad": (0, 0)}, "pad (0, 0): expected 4 numbers"),
        ("dense", {"activation": None}, "activation None"),
        ("add", {"activation": "HSWISH"}, "activation 'HSWISH'"),
        ("max_pool", {"kernel": (2, -1)}, "kernel (2, -1)"),
        ("avg_pool", {"stride": (0, 1)}, "stride (0, 1)"),
    ],
)
def test_impossible_attributes(kind, change, message):
    good = {"conv": CONV, "depthwise_conv": CONV, "max_pool": WINDOW, "avg_pool": WINDOW}
    attrs = {**good.get(kind, {"activation": "NONE"})}
    make(kind, attrs).check()
    with pytest.raises(ValueError) as caught:
        make(kind, {**attrs, **change}).check()
    assert message in str(caught.value)


def test_attributes_are_those_of_the_kind():
    with pytest.raises(ValueError, match=r"expected .'kernel', 'pad', 'stride'"):
        make("max_pool", {"kernel": (2, 2)})
    with pytest.raises(ValueError, match=r"settings .'axis'., expected ..$"):
        make("flatten", {"axis": 1})
    with pytest.raises(ValueError, match=r"no class of dpuflow\.ops is a 'sponge'"):
        make("sponge", {})


@pytest.mark.parametrize("kind", kinds(lambda operator: operator.weighted))
def test_weights_have_the_shape_that_the_operator_says(kind):
    for seed in range(8):
        case = random_case(kind, np.random.default_rng(seed))
        assert case.operator.weights_shape(case.inputs[0].shape[1:], case.shape) == case.weights.shape
        assert case.operator.output_channels(case.weights.shape) == case.shape[-1]


@pytest.mark.parametrize(
    ("kind", "attrs", "inputs", "output", "expected"),
    [
        ("conv", CONV, [(7, 9, 4)], (6, 4, 5), 6 * 4 * 5 * (2 * 6 * 4 + 1)),
        ("depthwise_conv", CONV, [(7, 9, 4)], (6, 4, 4), 6 * 4 * 4 * (2 * 6 + 1)),
        ("dense", {"activation": "NONE"}, [(30,)], (10,), 10 * 61),
        ("max_pool", WINDOW, [(7, 9, 4)], (7, 4, 4), 7 * 4 * 4 * 6),
        ("avg_pool", WINDOW, [(7, 9, 4)], (7, 4, 4), 7 * 4 * 4 * 12),
        ("add", {"activation": "NONE"}, [(7, 9, 4)] * 2, (7, 9, 4), 7 * 9 * 4 * 2),
        ("multiply", {}, [(7, 9, 4)] * 2, (7, 9, 4), 7 * 9 * 4 * 2),
        ("hard_sigmoid", {}, [(7, 9, 4)], (7, 9, 4), 7 * 9 * 4),
        ("concat", {"axis": 3}, [(7, 9, 4)] * 2, (7, 9, 8), 0),
        ("flatten", {}, [(7, 9, 4)], (252,), 0),
        ("softmax", {}, [(10,)], (10,), 0),
        ("input", {}, [], (7, 9, 4), 0),
    ],
)
def test_operations_as_the_vendor_counts(kind, attrs, inputs, output, expected):
    assert make(kind, attrs).operations(inputs, output) == expected


def test_shifts_of_an_addition():
    add = make("add", {"activation": "NONE"})
    assert add.shifts([6, 2], 3) == {"shift_read": (4, (0, 15)), "shift_write": (-1, (-15, 15))}
    assert OPERATORS["max_pool"](**WINDOW).shifts([3], 2) == {}


def test_shifts_and_workload_of_gates():
    assert list(make("multiply", {}).shifts([6, 7], 5).values()) == [(8, (0, 15))]
    assert list(make("hard_sigmoid", {}).shifts([6], 7).values()) == [
        (6, (0, 15)),
        (7, (7, 7)),
        (13, (0, 31)),
    ]
    assert make("multiply", {}).counted([(7, 9, 4)] * 2)
    assert not make("multiply", {}).counted([(7, 9, 4), (1, 1, 4)])
    assert not make("hard_sigmoid", {}).counted([(7, 9, 4)])
