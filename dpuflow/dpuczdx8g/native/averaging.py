"""Average pooling of what lies in the map: instructions by how much of the window does.

The ALU adds up a window, zeros where it is beyond the map, and multiplies by one factor per instruction.
So rows and columns of windows that see equally much of the map are computed together, with the factor of
that area.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby

from dpuflow.device.dpuczdx8g import average_pool_factor
from dpuflow.dpuczdx8g.native.operations import Operation, Span
from dpuflow.dpuczdx8g.native.tiling import Tile


def _equal(span: Span, axis: int, op: Operation) -> Iterator[tuple[int, Span]]:
    """(pixels of the window inside the map, [start, end) of the outputs that see so many) of an axis."""
    size = op.inputs[0].shape[axis]

    def inside(place: int) -> int:
        start = place * op.stride[axis] - op.pad[axis]
        return min(start + op.kernel[axis], size) - max(start, 0)

    for count, places in groupby(range(*span), inside):
        found = list(places)
        yield count, (found[0], found[-1] + 1)


def regions(op: Operation, tile: Tile) -> Iterator[tuple[Operation, Span, Span]]:
    """(operation with its factor, rows, columns) of the parts of a tile; of other kinds the tile itself."""
    rows, columns = (tile.row, tile.row_end), (tile.column, tile.column_end)
    if op.kind != "avg_pool_inside":
        yield op, rows, columns
        return
    for height, down in _equal(rows, 0, op):
        for width, across in _equal(columns, 1, op):
            yield replace(op, kind="avg_pool", multiplier=average_pool_factor(height, width)), down, across
