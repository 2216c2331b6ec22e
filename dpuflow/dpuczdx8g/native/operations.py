"""What the code generator compiles: operations on feature maps, all integers settled."""

from dataclasses import dataclass, field

from dpuflow.base.totality import Total

INPUT, OUTPUT, WORKSPACE, PARAMETERS = "REG_2", "REG_3", "REG_1", "REG_0"

KINDS = ("conv", "depthwise", "max_pool", "avg_pool", "hard_sigmoid", "add", "concat")
WINDOWED = Total(
    "dpuczdx8g.native.operations: whether an operation reads through a sliding window",
    KINDS,
    {
        **dict.fromkeys(("conv", "depthwise", "max_pool", "avg_pool", "hard_sigmoid"), True),
        **dict.fromkeys(("add", "concat"), False),
    },
)


@dataclass(eq=False)
class FeatureMap:
    """A feature map and its place in DDR (virtual while it stays on chip).

    Attributes
    ----------
    shape : (height, width, channels).
    region, address : base register and byte offset of its HWC image, rows without gaps.
    strides : bytes from row to row and from pixel to pixel, when it is a view of another
        map (`overlapping`); None for (width * channels, channels).
    spilled : the code moves it through DDR (set by the generator).
    """

    name: str
    shape: tuple[int, int, int]
    region: str = WORKSPACE
    address: int = 0
    strides: tuple[int, int] | None = None
    spilled: bool = False

    @property
    def size(self):
        """Bytes."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def row_bytes(self):
        """Bytes from one row to the next."""
        return self.strides[0] if self.strides else self.shape[1] * self.shape[2]

    @property
    def pixel_bytes(self):
        """Bytes from one pixel of a row to the next."""
        return self.strides[1] if self.strides else self.shape[2]

    def overlapping(self, kernel_w, stride_w):
        """A view whose pixels are windows of `kernel_w` pixels, all their channels together.

        Channel augmentation (facts isa.md 4.3): a kernel of one column on this view is one
        of kernel_w columns on the map, and its weights are the same bytes.
        """
        height, width, channels = self.shape
        shape = (height, (width - kernel_w) // stride_w + 1, kernel_w * channels)
        strides = (self.row_bytes, stride_w * self.pixel_bytes)
        return FeatureMap(f"{self.name} by {kernel_w} columns", shape, self.region, self.address, strides)


@dataclass(eq=False)
class Operation:
    """One operation on feature maps.

    Attributes
    ----------
    kind : one of KINDS.
    kernel, stride : (height, width); pad : (top, left), the output shape tells the rest.
    activation : "NONE", "RELU", "RELU6" or "LEAKYRELU".
    weights : byte address in REG_0 of the [OC, KH, KW, IC] (depthwise [1, KH, KW, C]) block.
    bias : byte address in REG_0 of the [OC] block.
    shift_cut : fix_in + fix_weights - fix_out; pools and add: fix_in - fix_out.
    shift_bias : the instruction field, fix_in + fix_weights - fix_bias + 1.
        hard_sigmoid has both from its op: shift_hsigmoid and hsigmoid_in.
    shift_read : add only, per input fix_in - min(fix_in).
    multiplier : avg_pool only, (M, S) with M / 2**S for 1 / (kernel area).
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

    @property
    def windowed(self):
        """Reads through a sliding window (all but add and concat)."""
        return WINDOWED[self.kind]


@dataclass
class Job:
    """Everything the generator needs for one DPU subgraph.

    Attributes
    ----------
    operations : in execution order.
    inputs, outputs : the feature maps in REG_2 and REG_3.
    parameters : bytes of REG_0.
    region_sizes : "REG_n" -> bytes.
    """

    name: str
    operations: list[Operation]
    inputs: list[FeatureMap]
    outputs: list[FeatureMap]
    parameters: bytes
    region_sizes: dict[str, int] = field(default_factory=dict)

    def consumers(self, feature_map):
        """Operations that read it."""
        return [op for op in self.operations if any(m is feature_map for m in op.inputs)]
