"""How workers share an image: the parts of its steps, in the order in which they are drawn."""

import ctypes
from collections.abc import Sequence

from dpuflow.emulator import c_kernels
from dpuflow.emulator.native_maps import Tensor, row_for_row


def tickets(
    run: c_kernels.Run,
    steps: "ctypes.Array[c_kernels.Step]",
    inputs: Sequence[Sequence[Tensor]],
    outputs: Sequence[Tensor | None],
) -> list[c_kernels.Ticket]:
    """Parts of the steps of an image that all workers do together, and what each of them needs.

    run : a call, of which the maps and steps are read. inputs, outputs : of each step. A part needs the
    steps before its own; of the one right before it only the parts that write rows it reads. So workers need
    not wait for each other between layers. Maps must have their places (`native_maps.set_lives_of_one`).
    """
    before_part = c_kernels.loaded().parts_before
    before_part.restype = ctypes.c_int64
    found: list[c_kernels.Ticket] = []
    start = before = 0
    for i, step in enumerate(steps):
        written = outputs[i - 1] if i else None
        read = [j for j, tensor in enumerate(inputs[i]) if written and tensor.root is written.root]
        by_rows = all(row_for_row(inputs[i][j], written) for j in read if written)
        for part in range(step.parts):
            places = [tuple(map(ctypes.c_int64, (i, part, j))) for j in read]
            needed = [
                before_part(ctypes.byref(run), *place) if by_rows else start - before for place in places
            ]
            found.append(c_kernels.Ticket(i, part, before + max(needed, default=0)))
        before, start = start, start + step.parts
    return found
