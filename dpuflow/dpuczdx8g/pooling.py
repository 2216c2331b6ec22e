"""Max pooling in two steps: along the rows, then along the columns, or the other way round.

The ALU takes a window position by position. A maximum over rows of maxima over columns is the maximum of
the window, and the padding, -128 beside the map, is the same to both; so 5x5 positions become 5 + 5.
"""

from math import ceil

from dpuflow.dpuczdx8g.timing import TIMING, Timing

Size = tuple[int, int]
"""(height, width)."""

WORTH = 0.9
"""Part of a pooling's cycles that its two steps may take at most: there is a map between them."""


def max_pool_steps(
    source: Size, output: Size, kernel: Size, groups: int, at_once: int, timing: Timing = TIMING
) -> list[tuple[Size, Size]]:
    """[(size of what a step gives, its kernel)]: the pooling itself, or the two steps that are quicker.

    Parameters
    ----------
    source, output, kernel : of the pooling.
    groups : channel groups of its map.
    at_once : rows that an instruction of the ALU handles.
    """
    whole = [(output, kernel)]
    if min(kernel) == 1:
        return whole
    pairs = (
        [((source[0], output[1]), (1, kernel[1])), (output, (kernel[0], 1))],
        [((output[0], source[1]), (kernel[0], 1)), (output, (1, kernel[1]))],
    )

    def cycles(steps: list[tuple[Size, Size]]) -> float:
        found = 0.0
        for (height, width), taps in steps:
            work = width * taps[0] * taps[1] * groups * timing.alu_cycles
            found += ceil(height / at_once) * (timing.issue_cycles + work)
        return found

    best = min(pairs, key=cycles)
    return best if cycles(best) <= WORTH * cycles(whole) else whole
