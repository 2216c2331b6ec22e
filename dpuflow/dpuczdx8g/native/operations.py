"""What the code generator compiles: operations on feature maps, all integers settled."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from dpuflow.dpuczdx8g.isa.machine import Machine
from dpuflow.dpuczdx8g.isa.settings import (
    AVERAGE_POOL,
    DEPTHWISE,
    DEPTHWISE_NO_BIAS,
    HARD_SIGMOID,
    MAX_POOL,
)

INPUT, OUTPUT, WORKSPACE, PARAMETERS = "REG_2", "REG_3", "REG_1", "REG_0"

Shape = tuple[int, int, int]
"""(height, width, channels)."""
Span = tuple[int, int]
"""[start, end)."""


@dataclass(frozen=True)
class Kind:
    """One kind of operation: all that tells the generator how to treat it.

    Attributes
    ----------
    engine : which instructions compute it: "convolution", "alu", "elementwise", or "none" (it only moves).
    channelwise : whether its channels do not mix, so that it can be sliced.
    windowed : whether it reads through a sliding window.
    exec_mode, elew_type : fields of the ALU's and the elementwise engine's instructions (
        docs/reference/instruction-set.md).
    factors : whether it multiplies by one factor per channel, which is a map itself (`Operation.factors`).
    phases_as : kind of the operations that it is made of, one for each position between its stride (see
        `transposed.phases`); None for what is one operation.
    """

    engine: str
    channelwise: bool = False
    windowed: bool = True
    exec_mode: int | None = None
    phases_as: str | None = None
    elew_type: int = 0
    factors: bool = False


KINDS = {
    "conv": Kind("convolution"),
    "depthwise": Kind("alu", channelwise=True, exec_mode=DEPTHWISE),
    "max_pool": Kind("alu", channelwise=True, exec_mode=MAX_POOL),
    "avg_pool": Kind("alu", channelwise=True, exec_mode=AVERAGE_POOL),
    "avg_pool_inside": Kind("alu", channelwise=True, exec_mode=AVERAGE_POOL),
    "hard_sigmoid": Kind("alu", channelwise=True, exec_mode=HARD_SIGMOID),
    "add": Kind("elementwise", windowed=False),
    "multiply": Kind("elementwise", windowed=False, elew_type=1),
    "scale": Kind("alu", channelwise=True, exec_mode=DEPTHWISE_NO_BIAS, factors=True),
    "concat": Kind("none", windowed=False),
    "upsample": Kind("none", windowed=False),
    "transposed_conv": Kind("convolution", phases_as="conv"),
    "transposed_depthwise": Kind("alu", channelwise=True, phases_as="depthwise"),
    "dilated_conv": Kind("convolution", phases_as="conv"),
}
ENGINES = ("convolution", "alu", "elementwise", "none")


@dataclass(frozen=True)
class Part:
    """Channels of a map, from `channel` on, that are another map's: every pixel (rows, columns) times."""

    feature_map: "FeatureMap"
    channel: int
    times: tuple[int, int] = (1, 1)


@dataclass(eq=False)
class FeatureMap:
    """A feature map and its place in DDR (virtual while it stays on chip).

    Attributes
    ----------
    shape : (height, width, channels).
    region, address : base register and byte offset of its HWC image, rows without gaps.
    strides : bytes from row to row and from pixel to pixel, when it is a view of another
        map (`overlapping`); None for (width * channels, channels).
    shift : bytes that a row's first pixel begins before the row, padding on the left (views).
    edge : pixels around the map that repeat the nearest one of its own (views, 0 or 1).
    margins : bytes that must lie before and behind the map in its region, for views that
        begin before it or end behind it.
    spilled : the code moves it through DDR (set by the generator).
    overwritten : a later map takes its place there (set by `workspace`).
    parts : what it is put together from whenever it is loaded; such a map has no place in DDR (set by
        `assembled`).
    """

    name: str
    shape: Shape
    region: str = WORKSPACE
    address: int = 0
    strides: tuple[int, int] | None = None
    shift: int = 0
    margins: tuple[int, int] = (0, 0)
    spilled: bool = False
    edge: int = 0
    overwritten: bool = False
    parts: tuple[Part, ...] = ()

    @property
    def size(self) -> int:
        """Bytes."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def row_bytes(self) -> int:
        """Bytes from one row to the next."""
        return self.strides[0] if self.strides else self.shape[1] * self.shape[2]

    @property
    def pixel_bytes(self) -> int:
        """Bytes from one pixel of a row to the next."""
        return self.strides[1] if self.strides else self.shape[2]

    def view(self, region: np.ndarray) -> np.ndarray:
        """It within its region, [images, bytes] -> [images, height, width, channels]; a copy if of parts."""
        if self.parts:
            found = [
                p.feature_map.view(region).repeat(p.times[0], 1).repeat(p.times[1], 2) for p in self.parts
            ]
            return np.concatenate(found, axis=3)
        rows, columns, channels = self.shape
        last = (rows - 1) * self.row_bytes + (columns - 1) * self.pixel_bytes + channels
        inside = region[:, self.address : self.address + last]
        images, byte = region.strides
        strides = (images, self.row_bytes * byte, self.pixel_bytes * byte, byte)
        return np.lib.stride_tricks.as_strided(inside, (len(region), *self.shape), strides)

    def lies_in(self, joined: "FeatureMap", first: int) -> None:
        """From now on its bytes are channels of `joined`, from `first` on, which has its place in DDR."""
        self.region, self.address = joined.region, joined.address + first
        self.strides, self.spilled = (joined.row_bytes, joined.pixel_bytes), True

    def overlapping(self, kernel_w: int, stride_w: int, left: int, width: int) -> "FeatureMap":
        """A view of `width` pixels, windows of `kernel_w` pixels, all their channels together.

        Channel augmentation (docs/reference/instruction-set.md): a kernel of one column on this view is one
        of kernel_w columns on the map, and its weights are the same bytes. The first window
        begins `left` pixels before the row; `load_padding` masks what is not of the row.
        """
        shape = (self.shape[0], width, kernel_w * self.shape[2])
        strides = (self.row_bytes, stride_w * self.pixel_bytes)
        name, shift = f"{self.name} by {kernel_w} columns", left * self.pixel_bytes
        return FeatureMap(name, shape, self.region, self.address, strides, shift)

    def reshaped(self, name: str, shape: Shape) -> "FeatureMap":
        """The same bytes as a map of another shape; only what lies in DDR can be read so."""
        return FeatureMap(name, shape, self.region, self.address)

    def channels(self, first: int, count: int) -> "FeatureMap":
        """A view of `count` channels from `first` on; only of what lies in DDR."""
        shape, strides = (*self.shape[:2], count), (self.row_bytes, self.pixel_bytes)
        view = FeatureMap(self.name, shape, self.region, self.address + first, strides, self.shift)
        view.edge = self.edge
        return view

    def every(self, step: tuple[int, int], first: tuple[int, int], size: tuple[int, int]) -> "FeatureMap":
        """A view of `size` (rows, columns) pixels, every `step`-th from `first` on; of what lies in DDR."""
        strides = (self.row_bytes * step[0], self.pixel_bytes * step[1])
        address = self.address + first[0] * self.row_bytes + first[1] * self.pixel_bytes
        return FeatureMap(self.name, (*size, self.shape[2]), self.region, address, strides)

    def with_edge(self) -> "FeatureMap":
        """A view with one pixel more on every side, the nearest of the map's own; of what lies in DDR."""
        height, width, channels = self.shape
        strides = (self.row_bytes, self.pixel_bytes)
        name = f"{self.name} with its edge"
        view = FeatureMap(name, (height + 2, width + 2, channels), self.region, self.address, strides)
        view.edge = 1
        return view

    def load_padding(self, machine: Machine, column: int, columns: int) -> dict[str, int]:
        """Fields pad_start, pad_end and pad_idx of a LOAD of `columns` pixels from `column` on.

        Zero, zero and one where all bytes are of the row. Rule: docs/reference/instruction-set.md; that
        all three fit
        their fields follows from channels <= 32 and a stride within the window.
        """
        if not self.strides or self.edge or self.pixel_bytes > self.shape[2]:
            return {}
        channels, step = self.shape[2], self.pixel_bytes
        start = np.arange(column, column + columns) * step - self.shift
        over = np.maximum(0, start + channels - self.row_bytes)
        affected = int((over > 0).sum())
        unused = machine.groups(channels) * machine.channels - channels
        return {
            "pad_start": max(0, -int(start[0])),
            "pad_end": unused + int(over[columns - affected]) if affected else 0,
            "pad_idx": max(1, affected),
        }


@dataclass(frozen=True)
class Phase:
    """What one phase of a transposed or dilated convolution is of the whole (`transposed.phases`).

    Attributes
    ----------
    kernel : (height, width) of the whole kernel, as its weights lie in REG_0.
    first, step : (row, column) of the first tap, and from tap to tap.
    place, apart : (row, column) of its first output pixel, and from pixel to pixel.
    """

    kernel: tuple[int, int]
    first: tuple[int, int]
    step: tuple[int, int]
    place: tuple[int, int]
    apart: tuple[int, int]


@dataclass(eq=False)
class Operation:
    """One operation on feature maps.

    Attributes
    ----------
    kind : one of KINDS.
    kernel, stride : (height, width); pad : (top, left), the output shape tells the rest. Of an upsample
        stride is its factor; of a transposed convolution it is the step between the zeros that are
        put between the input's pixels, and pad stands around these.
    activation : "NONE", "RELU", "RELU6" or "LEAKYRELU".
    weights : byte address in REG_0 of the [OC, KH, KW, IC] (depthwise [1, KH, KW, C]) block.
    bias : byte address in REG_0 of the [OC] block.
    shift_cut : fix_in + fix_weights - fix_out; pools and add: fix_in - fix_out.
    shift_bias : the instruction field, fix_in + fix_weights - fix_bias + 1.
        hard_sigmoid has both from its op: shift_hsigmoid and hsigmoid_in.
        multiply and scale: the inputs' fix_points less the output's.
    shift_read : add and multiply only, per input fix_in - min(fix_in) (multiply: 0).
    factors : scale only, the map (1, 1, C) in DDR that serves as the weights of a 1x1 depthwise
        convolution.
    multiplier : avg_pool only, (M, S) with M / 2**S for 1 / (kernel area).
    dilation : (rows, columns) from tap to tap.
    phase : of an operation that is one phase of a transposed convolution.
    zeros : byte address in REG_0 of weights of zero for phases without a tap.
    reads : of a convolution whose other weights are zero (`weight_loads.reads`), how many channel groups
        of the input each group of outputs reads, and the first of them; None: all.
    part : it prepares an input of the operation of the same name; its output is no map of the graph.
    first_channel, weight_channels : of a slice of an operation's channels (`channels`): where it begins,
        and how many channels the weights' block has (0: as many as the operation).
    """

    name: str
    kind: str
    inputs: list[FeatureMap]
    output: FeatureMap
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)
    activation: str = "NONE"
    weights: int = 0
    bias: int = 0
    shift_cut: int = 0
    shift_bias: int = 0
    shift_read: tuple[int, ...] = ()
    multiplier: tuple[int, int] = (1, 0)
    first_channel: int = 0
    weight_channels: int = 0
    dilation: tuple[int, int] = (1, 1)
    phase: Phase | None = None
    zeros: int = 0
    factors: FeatureMap | None = None
    part: bool = False
    reads: tuple[int, tuple[int, ...]] | None = None

    def channels(self, first: int, count: int) -> "Operation":
        """The operation on channels [first, first + count) alone, input and output in DDR.

        For operations whose channels do not mix.
        """
        return replace(
            self,
            inputs=[m.channels(first, count) for m in self.inputs],
            output=self.output.channels(first, count),
            factors=self.factors and self.factors.channels(first, count),
            weights=self.weights + first,
            bias=self.bias + first,
            first_channel=first,
            weight_channels=self.output.shape[2],
        )

    @property
    def picks_taps(self) -> bool:
        """Whether it is a phase with some of the kernel's taps: of a dilated convolution each has all."""
        return self.phase is not None and (self.phase.kernel, self.phase.step) != (self.kernel, (1, 1))

    @property
    def windowed(self) -> bool:
        """Reads through a sliding window."""
        return KINDS[self.kind].windowed


@dataclass(frozen=True)
class Piece:
    """What one computing instruction writes: [start, end) rows, columns, channel groups of an output.

    first, step : (row, column) of the phase's first pixel in the output, and from pixel to pixel.
    """

    op: str
    rows: Span
    columns: Span
    groups: Span
    first: tuple[int, int] = (0, 0)
    step: tuple[int, int] = (1, 1)

    @property
    def where(self) -> tuple[slice, slice]:
        """Its rows and columns in the whole output."""
        spans = zip((self.rows, self.columns), self.first, self.step, strict=True)
        rows, columns = (
            slice(first + start * step, first + (end - 1) * step + 1, step)
            for (start, end), first, step in spans
        )
        return rows, columns


@dataclass
class Job:
    """Everything the generator needs for one DPU subgraph.

    Attributes
    ----------
    operations : in execution order.
    inputs, outputs : the feature maps in REG_2 and REG_3.
    parameters : bytes of REG_0.
    region_sizes : "REG_n" -> bytes.
    views : (view, map whose bytes it shows), each map the one that is computed or loaded.
    pieces : index of an instruction -> the Piece that it computes, filled by the generator; by it
        the verification finds every map, on chip or not.
    whole : index of an instruction -> the maps that lie whole in DDR behind it; later ones may take their
        room (`workspace`).
    """

    name: str
    operations: list[Operation]
    inputs: list[FeatureMap]
    outputs: list[FeatureMap]
    parameters: bytes
    region_sizes: dict[str, int] = field(default_factory=dict)
    views: list[tuple[FeatureMap, FeatureMap]] = field(default_factory=list)
    pieces: dict[int, Piece] = field(default_factory=dict)
    whole: dict[int, list[FeatureMap]] = field(default_factory=dict)

    def views_of(self, feature_map: FeatureMap) -> list[FeatureMap]:
        """Views of its bytes."""
        return [view for view, source in self.views if source is feature_map]

    def whole_by_name(self, maps: Mapping[str, FeatureMap]) -> dict[int, list[str]]:
        """`whole`, each of these maps by its name."""
        names: dict[int, list[str]] = {}
        for name, feature_map in maps.items():
            names.setdefault(id(feature_map), []).append(name)
        return {index: [n for m in held for n in names.get(id(m), ())] for index, held in self.whole.items()}

    def source(self, feature_map: FeatureMap) -> FeatureMap:
        """The map whose bytes a view shows; any other map itself."""
        return next((source for view, source in self.views if view is feature_map), feature_map)

    def consumers(self, feature_map: FeatureMap) -> list[Operation]:
        """Operations that read it, as a map or as factors."""
        return [op for op in self.operations if any(m is feature_map for m in (*op.inputs, op.factors))]
