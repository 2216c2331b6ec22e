"""strided_slice-fix: part of a map, on the DPU."""

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.emulator import Emulator
from dpuflow.xir import Graph

SHAPE = (6, 5, 40)
GRID = {"bit_width": 8, "if_signed": True, "round_mode": "DPU_ROUND"}


def sliced(shape, fix_out=4, **attrs):
    """Graph of one slice of a 6x5x40 map of fix_point 4, compiled form."""
    graph = Graph("slice")
    source = graph.add_op("x", "data-fix", {}, {"shape": [1, *SHAPE], "data_type": "XINT8"})
    source.tensor.attrs.update({"fix_point": 4, **GRID})
    # an op whose shape is not inferred: as a file has it
    node = graph.proto.op_node.add(op_name="part", op_type="strided_slice-fix")
    node.args.add(arg_name="input", arg_ops=["x"])
    node.output_tensor.tensor_name = "part"
    graph = Graph(proto=graph.proto)
    op = graph.op("part")
    op.attrs.update(attrs)
    op.tensor.shape, op.tensor.data_type, op.tensor.bit_width = (1, *shape), "XINT", 8
    op.tensor.attrs.update({"fix_point": fix_out, **GRID})
    return graph


def images(count=3):
    return np.random.default_rng(8).integers(-128, 128, (count, *SHAPE)).astype(np.int8)


BOUNDS = {
    "second half of the channels": ([0, 0, 0, 20], [1, 6, 5, 40], [1, 1, 1, 1], np.s_[:, :, :, 20:]),
    "to the end": ([0, 1, 0, 3], [1, 2**31 - 1, 2**31 - 1, -1], [1, 1, 1, 1], np.s_[:, 1:, :, 3:-1]),
    "every other pixel": ([0, 1, 0, 0], [1, 6, 5, 40], [1, 2, 2, 1], np.s_[:, 1::2, ::2]),
    "every third channel": ([0, 0, 0, 1], [1, 6, 5, 40], [1, 1, 1, 3], np.s_[..., 1::3]),
    "axes not named": ([0, -2], [1, 6], [1, 1], np.s_[:, -2:]),
}


@pytest.mark.parametrize("native", [False, True], ids=["numpy", "c"])
@pytest.mark.parametrize("case", BOUNDS)
def test_part_of_a_map(case, native):
    begin, end, strides, index = BOUNDS[case]
    x = images()
    expected = x[index]
    graph = sliced(expected.shape[1:], begin=begin, end=end, strides=strides)
    assert np.array_equal(Emulator(graph, use_native=native).run(x), expected)


def test_masks_take_places_away():
    x = images()
    bounds = {"begin": [0, 2, 2, 2], "end": [1, 3, 3, 3], "strides": [1, 1, 1, 1]}
    graph = sliced((3, 1, 38), **bounds)
    graph.op("part").attrs.set("begin_mask", 0b0010, "int32")
    graph.op("part").attrs.set("end_mask", 0b1000, "int32")
    assert np.array_equal(Emulator(graph).run(x), x[:, :3, 2:3, 2:])


@pytest.mark.parametrize("native", [False, True], ids=["numpy", "c"])
def test_another_fix_point_is_rounded(native):
    x = images()
    graph = sliced((6, 5, 10), 2, begin=[0, 0, 0, 30], end=[1, 6, 5, 40], strides=[1, 1, 1, 1])
    expected = np.floor(x[..., 30:] / 4 + 0.5)
    assert np.array_equal(Emulator(graph, use_native=native).run(x), np.clip(expected, -128, 127))


REFUSED = {
    "another shape": ((6, 5, 20), {}, r"gives \[1, 6, 5, 10\]; its shape is \[1, 6, 5, 20\]"),
    "a mask that is not known": ((6, 5, 10), {"shrink_axis_mask": 8}, "shrink_axis_mask 8 is not known"),
    "backwards": ((6, 5, 10), {"strides": [1, 1, 1, -1]}, "strides of at least 1"),
    "lists of other lengths": ((6, 5, 10), {"end": [1, 6]}, "three equally long lists"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_known_is_refused_by_name(case):
    shape, changes, message = REFUSED[case]
    attrs = {"begin": [0, 0, 0, 30], "end": [1, 6, 5, 40], "strides": [1, 1, 1, 1]}
    graph = sliced(shape, **attrs)
    for name, value in changes.items():
        graph.op("part").attrs.set(name, value, "int32_vec" if isinstance(value, list) else "int32")
    with pytest.raises(UserError, match=r"'part' \(strided_slice-fix\): .*" + message):
        Emulator(graph)
