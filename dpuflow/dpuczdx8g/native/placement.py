"""Feature maps in the image banks: where rows lie, and who may use which entries.

Layout (docs/reference/instruction-set.md): row t of a map is in bank (t div s) mod PP of its group,
s rows one after the other per bank; then the next s * PP rows follow behind in every bank.
s (`sub_rows`) is the row stride of whoever reads the map.
"""

from dataclasses import dataclass

from dpuflow.dpuczdx8g.isa.machine import BANK_DEPTH, Machine


def ceil_div(a: int, b: int) -> int:
    """Smallest integer >= a / b."""
    return -(-a // b)


@dataclass(frozen=True)
class Placement:
    """Rows `row .. row + rows` and columns `column .. column + columns` of a map in one image group."""

    machine: Machine
    group: int
    base: int
    row: int
    rows: int
    column: int
    columns: int
    entries: int
    sub_rows: int

    @property
    def row_entries(self) -> int:
        """Entries of one stored row."""
        return self.columns * self.entries

    @property
    def block_entries(self) -> int:
        """Entries per bank of sub_rows * PP rows."""
        return self.sub_rows * self.row_entries

    @property
    def size(self) -> int:
        """Entries taken in every bank of the group."""
        return ceil_div(self.rows, self.sub_rows * self.machine.pixels) * self.block_entries

    def locate(self, row: int) -> tuple[int, int, int]:
        """(bank id, sub-row, address of its block) of a row of the map, which may lie above the first."""
        block, rest = divmod(row - self.row, self.sub_rows * self.machine.pixels)
        bank = self.group * self.machine.pixels + rest // self.sub_rows
        return bank, rest % self.sub_rows, self.base + block * self.block_entries

    def offset(self, column: int) -> int:
        """Entries from the start of a row to `column` of the map, negative left of the first."""
        return (column - self.column) * self.entries

    def address(self, row: int, column: int) -> tuple[int, int]:
        """(bank id, address) of one pixel, address modulo the bank depth."""
        bank, sub, block = self.locate(row)
        return bank, (block + sub * self.row_entries + self.offset(column)) % BANK_DEPTH


class Ring:
    """Hands out entries of banks in a circle, so that old content is overwritten last.

    `hold` keeps one range (a resident map) out of the circle.
    """

    def __init__(self, depth: int = BANK_DEPTH) -> None:
        self.depth = depth
        self.cursor = 0
        self.held: tuple[int, int] | None = None

    @property
    def free(self) -> int:
        """Entries that one allocation may take at most."""
        return self.depth - (self.held[1] if self.held else 0)

    def hold(self, base: int, size: int) -> None:
        """Keep `size` entries from `base` out of the circle until `release`."""
        self.held = (base, size)

    def release(self) -> None:
        """All entries may be handed out again."""
        self.held = None

    def take(self, size: int) -> int:
        """Base of `size` consecutive (wrapping) entries; ValueError when they cannot exist."""
        if size > self.free:
            raise ValueError(f"{size} entries do not fit, {self.free} are free")
        if self.held:
            start = sum(self.held)
            used = (self.cursor - start) % self.depth
            if used + size > self.free:
                used = 0
            base = (start + used) % self.depth
        else:
            base = self.cursor
        self.cursor = (base + size) % self.depth
        return base
