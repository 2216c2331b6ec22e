"""What a convolution in groups reads of its input: it is a whole one with zeros between the groups."""

import numpy as np


def groups_read(weights: np.ndarray, channels: int) -> tuple[int, tuple[int, ...]]:
    """(channel groups that every group of outputs reads, the first of them for each).

    weights : (outputs, taps, inputs), of any number type. channels : of a group, of inputs and of outputs.
    """
    outputs, _, inputs = weights.shape
    used: np.ndarray = np.any(weights, axis=1)
    spans = []
    for first in range(0, outputs, channels):
        found = np.flatnonzero(used[first : first + channels].any(axis=0)) // channels
        spans.append((int(found[0]), int(found[-1]) + 1) if len(found) else (0, 1))
    width = max(end - start for start, end in spans)
    return width, tuple(min(start, -(-inputs // channels) - width) for start, _ in spans)
