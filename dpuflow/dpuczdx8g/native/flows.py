"""What the plan of a segment (`streaming`) is made of: maps, where they lie, the order of work."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from dpuflow.dpuczdx8g.native.operations import FeatureMap, Operation, Span
from dpuflow.dpuczdx8g.native.placement import Placement, Ring
from dpuflow.dpuczdx8g.native.tiling import window_range


class NoPlanError(Exception):
    """These operations cannot run as one segment, so cut."""


@dataclass(frozen=True)
class Resident:
    """A map that lies whole in the banks; rows : when each is there, by the clock of the schedule."""

    feature_map: FeatureMap
    placement: Placement
    rows: tuple[float, ...]


@dataclass
class State:
    """What is where between two segments.

    Attributes
    ----------
    residents, saved : id of a map -> Resident; id of a map in DDR -> when it is there.
    rings : of both image groups; free : when each engine is done; floor : when loads may begin.
    busy : cycles of LOAD and SAVE so far.
    """

    residents: dict[int, Resident] = field(default_factory=dict)
    saved: dict[int, float] = field(default_factory=dict)
    rings: tuple[Ring, Ring] = field(default_factory=lambda: (Ring(), Ring()))
    free: list[float] = field(default_factory=lambda: [0.0] * 4)
    floor: float = 0.0
    busy: float = 0.0

    def copy(self) -> "State":
        """Another one, to go on from."""
        rings = self.rings[0].copy(), self.rings[1].copy()
        return State(dict(self.residents), dict(self.saved), rings, list(self.free), self.floor, self.busy)

    @property
    def cost(self) -> float:
        """What a schedule is judged by: cycles, and a tenth of what occupies the DDR."""
        return max(self.free) + 0.1 * self.busy


@dataclass
class Flow:
    """A map within a segment.

    Attributes
    ----------
    sub : rows per bank.
    producer : number of the operation that computes it, None if it is loaded or resident.
    consumers : numbers of the operations that read it.
    resident : where it lies already.
    save, keep : whether it goes to DDR, stays whole.
    columns : [start, end) of each strip; share : of these the ones that are saved.
    blocks : of the ring, 0 for all.
    placements : for each strip; width : columns of the widest.
    """

    feature_map: FeatureMap
    producer: int | None = None
    consumers: list[int] = field(default_factory=list)
    resident: Resident | None = None
    save: bool = False
    keep: bool = False
    sub: int = 1
    columns: list[Span] = field(default_factory=list)
    share: list[Span] = field(default_factory=list)
    blocks: int = 0
    placements: list[Placement] = field(default_factory=list)
    width: int = 0

    @property
    def height(self) -> int:
        """Rows."""
        return self.feature_map.shape[0]


@dataclass(frozen=True)
class Task:
    """Load, compute or save rows [start, end) of a strip; `number` is of the flow or of the operation."""

    kind: str
    number: int
    rows: Span
    strip: int


def window(op: Operation, axis: int, span: Span) -> Span:
    """[start, end) along an axis of the input that outputs `span` read; at least one, to have a place."""
    if not op.windowed:
        return span
    size = op.inputs[0].shape[axis]
    first, end = window_range(*span, op.stride[axis], op.kernel[axis], op.pad[axis], size)
    if axis == 0:
        return min(first, size), max(0, end)
    first = min(first, size - 1)
    return first, max(end, first + 1)


def distinct(maps: Sequence[FeatureMap]) -> list[FeatureMap]:
    """Maps, each once."""
    return list({id(m): m for m in maps}.values())
