"""The algebra of axes, against NumPy moving real arrays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpuflow.onnx_graph import axes as algebra
from dpuflow.onnx_graph.axes import Atom


def seen(axes, array):
    """The array of a layer as ONNX sees it."""
    return array.reshape(-1)[algebra.positions(axes, array.shape)].reshape(algebra.sizes(axes))


def test_the_order_of_a_flattened_map_is_channels_first():
    array = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    axes = algebra.whole(array.shape, (2, 0, 1))
    np.testing.assert_array_equal(seen(axes, array), array.transpose(2, 0, 1))
    flat = algebra.reshaped(axes, [24])
    np.testing.assert_array_equal(seen(flat, array), array.transpose(2, 0, 1).reshape(-1))
    assert algebra.reshaped(flat, [4, 2, 3]) == axes
    vector = algebra.of_vector(flat, array.shape)
    np.testing.assert_array_equal(seen(vector, array.reshape(-1)), array.transpose(2, 0, 1).reshape(-1))


def test_an_uneven_cut_is_none():
    axes = algebra.whole((2, 3, 4), (2, 0, 1))
    assert algebra.reshaped(axes, [3, 8]) is None and algebra.reshaped(axes, [4, 2, 2]) is None
    assert algebra.simplified([Atom(0, 2, 3), Atom(0, 3, 1), Atom(1, 1)]) == (Atom(0, 6),)
    assert algebra.simplified([Atom(0, 3, 1), Atom(0, 2, 3)]) == (Atom(0, 3, 1), Atom(0, 2, 3))


@pytest.mark.parametrize("groups", [2, 3])
def test_a_shuffle_of_channels(groups):
    array = np.arange(2 * 2 * 6).reshape(2, 2, 6)
    axes = algebra.reshaped(algebra.whole(array.shape, (2, 0, 1)), [groups, 6 // groups, 2, 2])
    axes = algebra.reshaped((axes[1], axes[0], *axes[2:]), [6, 2, 2])
    wanted = array.transpose(2, 0, 1).reshape(groups, 6 // groups, 2, 2).swapaxes(0, 1).reshape(6, 2, 2)
    np.testing.assert_array_equal(seen(axes, array), wanted)
    assert algebra.only_of(axes[0], 2) and not algebra.has_whole(axes[0], array.shape, 2)


@settings(max_examples=60)
@given(st.data())
def test_any_chain_of_reshapes_and_transposes_is_what_numpy_makes(data):
    shape = data.draw(st.tuples(*[st.sampled_from([1, 2, 3, 4, 6])] * 3))
    array = np.arange(np.prod(shape)).reshape(shape)
    axes, expected = algebra.whole(shape, (2, 0, 1)), array.transpose(2, 0, 1)
    for _ in range(data.draw(st.integers(1, 5))):
        if data.draw(st.booleans()):
            order = data.draw(st.permutations(range(expected.ndim)))
            axes, expected = tuple(axes[k] for k in order), expected.transpose(order)
        else:
            sizes, left = [], expected.size
            while left > 1 and len(sizes) < 4:
                sizes.append(data.draw(st.sampled_from([n for n in range(1, left + 1) if left % n == 0])))
                left //= sizes[-1]
            sizes.append(left)
            found = algebra.reshaped(axes, sizes)
            if found is None:
                continue
            axes, expected = found, expected.reshape(sizes)
        np.testing.assert_array_equal(seen(axes, array), expected)
