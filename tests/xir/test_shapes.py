"""Shape inference against counting, and against every op of the vendor's files."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpuflow.xir import Graph, map_shapes, opdefs, shapes


@given(
    size=st.integers(1, 40),
    kernel=st.integers(1, 9),
    stride=st.integers(1, 9),
    dilation=st.integers(1, 3),
    before=st.integers(0, 5),
    after=st.integers(0, 5),
)
def test_floor_counts_the_windows_that_fit(size, kernel, stride, dilation, before, after):
    starts = range(-before, size + after, stride)
    fit = [s for s in starts if s + (kernel - 1) * dilation + 1 <= size + after]
    found = map_shapes.window_output(size, kernel, stride, dilation, before + after)
    assert max(found, 0) == len(fit)


@pytest.mark.parametrize(
    ("mode", "size", "kernel", "stride", "pad", "expected"),
    [
        *(
            ("FLOOR", 7, 2, 2, 0, 3),
            ("CEIL", 7, 2, 2, 0, 4),
            ("CEIL", 8, 2, 2, 0, 4),
            ("CEIL", 7, 3, 2, 1, 4),
        ),
        *(
            ("SAME", 7, 3, 2, 0, 4),
            ("SAME", 8, 3, 2, 0, 4),
            ("VALID", 7, 3, 2, 0, 3),
            ("VALID", 8, 3, 2, 0, 3),
        ),
    ],
)
def test_pad_modes(mode, size, kernel, stride, pad, expected):
    assert map_shapes.window_output(size, kernel, stride, 1, pad, mode) == expected


@pytest.mark.parametrize("name", ["zcu102_mnist_3.0", "zcu102_mnist_2.5", "voxelnet_quantized_2.0"])
def test_every_known_op_of_the_vendors_files(shared, name):
    graph = Graph.load(shared(f"golden/vendor/{name}.xmodel"))
    compared = set()
    for op in graph.ops:
        if shapes.known(op.type):
            stored = (op.tensor.shape, op.tensor.data_type, op.tensor.bit_width)
            assert shapes.infer(graph, op) == stored, op
            compared.add(op.type)
    assert len(compared) >= 7


def built(type_, inputs, attrs):
    """Inferred shape of a float op over inputs given as shapes."""
    graph = Graph("g")
    arguments = {}
    for argument, given_shapes in inputs.items():
        arguments[argument] = []
        for shape in given_shapes:
            name = f"i{len(graph.ops)}"
            graph.add_op(name, "data", attrs={"shape": list(shape), "data_type": "FLOAT32"})
            arguments[argument].append(name)
    return graph.add_op("op", type_, arguments, attrs).tensor.shape


TRANSPOSED = {"input": [(1, 5, 7, 4)], "weights": [(6, 2, 3, 4)]}
WINDOW = {"kernel": [3, 2], "stride": [2, 1], "pad": [1, 1, 0, 0], "pad_mode": "FLOOR"}


@pytest.mark.parametrize(
    ("type_", "inputs", "attrs", "expected"),
    [
        ("conv2d", {"input": [(1, 5, 7, 4)], "weights": [(6, 2, 3, 4)]}, WINDOW, (1, 4, 4, 6)),
        (
            "conv2d",
            {"input": [(1, 5, 7, 4)], "weights": [(6, 2, 3, 2)]},
            {**WINDOW, "group": 2},
            (1, 4, 4, 6),
        ),
        ("depthwise-conv2d", {"input": [(1, 5, 7, 4)], "weights": [(2, 2, 3, 4)]}, WINDOW, (1, 4, 4, 8)),
        ("maxpool2d", {"input": [(1, 5, 7, 4)]}, WINDOW, (1, 4, 4, 4)),
        ("avgpool2d", {"input": [(1, 5, 7, 4)]}, {**WINDOW, "global": True}, (1, 1, 1, 4)),
        ("add", {"input": [(1, 5, 7, 4), (4,)]}, {}, (1, 5, 7, 4)),
        ("concat", {"input": [(1, 5, 7, 4), (1, 5, 7, 2)]}, {"axis": -1}, (1, 5, 7, 6)),
        ("reshape", {"input": [(2, 3, 4)]}, {"shape": [0, -1]}, (2, 12)),
        ("stack", {"input": [(3, 4), (3, 4)]}, {"axis": -1}, (3, 4, 2)),
        ("transposed-conv2d", TRANSPOSED, WINDOW, (1, 6, 13, 6)),
        ("transposed-conv2d", TRANSPOSED, {**WINDOW, "dilation": [1, 3]}, (1, 8, 13, 6)),
        ("transposed-conv2d", TRANSPOSED, {**WINDOW, "pad_mode": "SAME"}, (1, 5, 14, 6)),
        ("transposed-conv2d", TRANSPOSED, {**WINDOW, "pad_mode": "VALID"}, (1, 6, 15, 6)),
        ("upsample-fix", {"input": [(1, 5, 7, 4)]}, {"mode": "NEAREST", "scale": [1.5, 3.0]}, (1, 15, 10, 4)),
        ("downsample-fix", {"input": [(1, 5, 7, 4)]}, {"mode": "NEAREST", "scale": [2.0, 5.0]}, (1, 1, 4, 4)),
        ("flatten", {"input": [(1, 5, 7, 4)]}, {"start_axis": 1, "end_axis": -1}, (1, 140)),
        ("matmul", {"input": [(1, 8), (3, 8)]}, {"transpose_a": False, "transpose_b": True}, (1, 3)),
        ("transpose", {"input": [(1, 5, 7, 4)]}, {"order": [0, 3, 1, 2]}, (1, 4, 5, 7)),
        ("reduction_mean", {"input": [(1, 5, 7, 4)]}, {"axis": [1, 2], "keep_dims": False}, (1, 4)),
        ("pad", {"input": [(1, 5, 4)]}, {"paddings": [0, 0, 1, 2, 0, 3], "mode": "CONSTANT"}, (1, 8, 7)),
    ],
)
def test_rules(type_, inputs, attrs, expected):
    assert built(type_, inputs, attrs) == expected


@pytest.mark.parametrize(
    ("type_", "inputs", "attrs", "message"),
    [
        ("conv2d", {"input": [(1, 5, 7, 4)], "weights": [(6, 2, 3, 3)]}, WINDOW, "do not fit 4 channels"),
        ("conv2d", {"input": [(1, 5, 7, 4)], "weights": [(6, 3, 2, 4)]}, WINDOW, "do not have the kernel"),
        ("maxpool2d", {"input": [(1, 1, 7, 4)]}, WINDOW, "does not fit the padded input"),
        ("add", {"input": [(1, 5, 7, 4), (3,)]}, {}, "cannot be broadcast"),
        ("concat", {"input": [(1, 5, 7, 4), (1, 6, 7, 4)]}, {"axis": 3}, "differ outside axis 3"),
        ("reshape", {"input": [(2, 3, 4)]}, {"shape": [5, -1]}, "cannot be reshaped"),
        ("stack", {"input": [(3, 4), (3, 5)]}, {"axis": 0}, "not of one shape"),
        (
            "upsample-fix",
            {"input": [(1, 5, 7, 4)]},
            {"mode": "NEAREST", "scale": [-1.0, 2.0]},
            "scale must be",
        ),
        ("transpose", {"input": [(1, 5)]}, {"order": [0, 0]}, "not a permutation"),
    ],
)
def test_what_does_not_fit_is_said(type_, inputs, attrs, message):
    with pytest.raises(shapes.ShapeError, match=message):
        built(type_, inputs, attrs)


def reshape_by_argument(numbers, stacked=True):
    """x.view as vai_q_pytorch writes it: attribute shape [0], the shape in a stack of float consts."""
    graph = Graph("g")
    graph.add_op("x", "data", attrs={"shape": [1, 5, 5, 16], "data_type": "FLOAT32"})
    for i, number in enumerate(numbers):
        data = np.array([number], np.float32).tobytes()
        graph.add_op(f"n{i}", "const", attrs={"shape": [1], "data_type": "float32", "data": data})
    names = [f"n{i}" for i in range(len(numbers))]
    feeder = graph.add_op("s", "stack", {"input": names}, {"axis": 0}).name if stacked else names[0]
    return graph.add_op("y", "reshape", {"input": ["x"], "shape": [feeder]}, {"shape": [0]})


def test_the_shape_of_a_reshape_may_be_an_argument():
    assert reshape_by_argument([1, 400]).tensor.shape == (1, 400)
    assert reshape_by_argument([1, -1]).tensor.shape == (1, 400)
    assert reshape_by_argument([400], stacked=False).tensor.shape == (400,)
    with pytest.raises(shapes.ShapeError, match=r"cannot be reshaped to \[1, 401\]"):
        reshape_by_argument([1, 401])
    for number in (2.5, np.nan):
        with pytest.raises(shapes.ShapeError, match=r"'s'.* is no constant shape"):
            reshape_by_argument([1, number])


def test_every_type_has_a_rule_or_is_listed_as_having_none():
    ruled = {type_ for type_ in (*opdefs.OPDEFS, *opdefs.OTHER_TYPES) if shapes.known(type_)}
    assert ruled.isdisjoint(shapes.UNCHECKED)
    assert ruled | shapes.UNCHECKED == {*opdefs.OPDEFS, *opdefs.OTHER_TYPES}
