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
    """Rows `row .. row + rows` and columns `column .. column + columns` of a map in one image group.

    blocks : of how many blocks (sub_rows * PP rows) there is room; a later one takes the place of
        the one that many before it. 0: room for all.
    first : place in the ring of the first block; pitch : entries from block to block, 0 where they touch.
    """

    machine: Machine
    group: int
    base: int
    row: int
    rows: int
    column: int
    columns: int
    entries: int
    sub_rows: int
    blocks: int = 0
    first: int = 0
    pitch: int = 0

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
        blocks = self.blocks or ceil_div(self.rows, self.sub_rows * self.machine.pixels)
        return blocks * (self.pitch or self.block_entries)

    def block_of(self, row: int) -> int:
        """Number of the block that a row of the map is in; negative above the first row."""
        return (row - self.row) // (self.sub_rows * self.machine.pixels)

    def block_address(self, block: int) -> int:
        """Address of a block in every bank, not yet modulo the bank depth."""
        place = (block + self.first) % self.blocks if self.blocks else block
        return self.base + place * (self.pitch or self.block_entries)

    def locate(self, row: int) -> tuple[int, int, int]:
        """(bank id, sub-row, address of its block) of a row of the map, which may lie above the first."""
        block, rest = divmod(row - self.row, self.sub_rows * self.machine.pixels)
        bank = self.group * self.machine.pixels + rest // self.sub_rows
        return bank, rest % self.sub_rows, self.block_address(block)

    def offset(self, column: int) -> int:
        """Entries from the start of a row to `column` of the map, negative left of the first."""
        return (column - self.column) * self.entries

    def address(self, row: int, column: int) -> tuple[int, int]:
        """(bank id, address) of one pixel, address modulo the bank depth."""
        bank, sub, block = self.locate(row)
        return bank, (block + sub * self.row_entries + self.offset(column)) % BANK_DEPTH


class Ring:
    """Hands out entries of banks in a circle, so that old content is overwritten last.

    `hold` keeps a range out of the circle until it is freed.
    """

    def __init__(self, depth: int = BANK_DEPTH) -> None:
        self.depth = depth
        self.cursor = 0
        self.held: tuple[tuple[int, int], ...] = ()

    def copy(self) -> "Ring":
        """Another one in the same state."""
        ring = Ring(self.depth)
        ring.cursor, ring.held = self.cursor, self.held
        return ring

    def gaps(self) -> list[tuple[int, int]]:
        """(start, size) of what may be handed out; the start modulo the depth, a gap may wrap."""
        if not self.held:
            return [(self.cursor, self.depth)]
        ranges = sorted(self.held)
        found = []
        for (base, size), (following, _) in zip(ranges, [*ranges[1:], ranges[0]], strict=True):
            start = base + size
            room = (following - start) % self.depth if len(ranges) > 1 else self.depth - size
            if room:
                found.append((start % self.depth, room))
        return found

    @property
    def free(self) -> int:
        """Entries that one allocation may take at most."""
        return max((size for _, size in self.gaps()), default=0)

    def hold(self, base: int, size: int) -> None:
        """Keep `size` entries from `base` out of the circle until they are freed."""
        self.held += ((base, size),)

    def release(self, base: int) -> None:
        """The range held from `base` on may be handed out again."""
        self.held = tuple(held for held in self.held if held[0] != base)

    def take(self, size: int) -> int:
        """Base of `size` consecutive (wrapping) entries; ValueError when they cannot exist."""
        behind: list[tuple[int, int]] = []
        for start, room in self.gaps():
            inside = (self.cursor - start) % self.depth
            if inside + size <= room:
                behind.append((0, self.cursor))
            if size <= room:
                behind.append(((start - self.cursor) % self.depth, start))
        if not behind:
            raise ValueError(f"{size} entries do not fit, {self.free} are free")
        base = min(behind)[1]
        self.cursor = (base + size) % self.depth
        return base
