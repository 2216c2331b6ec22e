"""A DPU subgraph of a compiled graph -> the Job the code generator takes.

Which ops, attributes and layouts there are: docs/reference/xmodel.md. UserError
names the op when this compiler has no code for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.device.dpuczdx8g import (
    HARDWARE_SHIFT_BIAS_MIN,
    POOL_SHIFT_RANGE,
    RELU6_FIX_POINT,
    average_pool_factor,
)
from dpuflow.dpuczdx8g.isa.settings import SHIFT_BIAS_MAX, SHIFT_CUT_MAX
from dpuflow.dpuczdx8g.native import joining, resizing, shuffling
from dpuflow.dpuczdx8g.native.joining import activation
from dpuflow.dpuczdx8g.native.operations import INPUT, KINDS, OUTPUT, PARAMETERS, FeatureMap, Job, Operation
from dpuflow.xir import Graph, Op, Subgraph
from dpuflow.xir.parameters import constants

SLOT = 4096
"""Alignment of every parameter tensor in REG_0, as the vendor's compiler 3.0 does."""
ALIGNMENT = 16
"""DDR regions are rounded up to this (docs/reference/instruction-set.md)."""
CONV_KERNEL_MAX, CONV_STRIDE_MAX = 16, 8
ALU_MAX = 256
PAD_MAX = 15


@dataclass
class Lowered:
    """A Job and where each op's tensor ended up.

    Attributes
    ----------
    maps : op name -> FeatureMap of its output tensor.
    slots : const-fix op name -> byte address in REG_0.
    augmented : names of convolutions whose kernel columns are folded into the channels.
    """

    job: Job
    maps: dict[str, FeatureMap] = field(default_factory=dict)
    slots: dict[str, int] = field(default_factory=dict)
    augmented: set[str] = field(default_factory=set)


def lower_subgraph(
    graph: Graph, subgraph: Subgraph, known: Mapping[str, np.ndarray] | None = None
) -> Lowered:
    """Read one DPU subgraph.

    Its weights may lie in the const-fix ops, or, if the file has been compiled before, in
    the subgraph's parameters. known : {op name: array} of all constants, if they have been read.
    """
    names = set(subgraph.op_names)
    reader = _Reader(graph, subgraph.name, constants(graph) if known is None else known)
    for op in graph.ops:
        if op.name in names:
            reader.read(op)
    return reader.finish()


def align(size: int, unit: int = ALIGNMENT) -> int:
    """`size` rounded up to a multiple of `unit`."""
    return -(-size // unit) * unit


class _Reader:
    def __init__(self, graph: Graph, name: str, known: Mapping[str, np.ndarray]):
        self.graph, self.constants = graph, known
        self.lowered = Lowered(Job(name, [], [], [], b""))
        self.blob = bytearray()
        self.zero_bias: dict[int, int] = {}

    @property
    def job(self) -> Job:
        return self.lowered.job

    def read(self, op: Op) -> None:
        handler = HANDLERS.get(op.type)
        if handler is None:
            raise UserError(f"op {op.name!r}: the native compiler has no machine code for {op.type}")
        handler(self, op)

    def finish(self) -> Lowered:
        job = self.job
        ends = {}
        for region, maps in ((INPUT, job.inputs), (OUTPUT, job.outputs)):
            address = 0
            for feature_map in maps:
                before, behind = feature_map.margins
                feature_map.address = address + before
                address = align(feature_map.address + feature_map.size + behind)
            ends[region] = address
        for view, source in job.views:
            view.region, view.address = source.region, source.address
        job.parameters = bytes(self.blob)
        job.region_sizes = {"REG_0": len(self.blob), **ends}
        return self.lowered

    def map_of(self, name: str) -> FeatureMap:
        """Feature map that the op `name` produced; a constant one lies among the parameters."""
        if name not in self.lowered.maps and self.graph.op(name).type == "const-fix":
            shape = _hwc(self.graph.op(name).tensor.shape)
            self.lowered.maps[name] = FeatureMap(name, shape, PARAMETERS, self.constant(name))
        if name not in self.lowered.maps:
            raise UserError(f"op {name!r}: expected a feature map inside DPU subgraph {self.job.name!r}")
        return self.lowered.maps[name]

    def new_map(self, op: Op, region: str | None = None) -> FeatureMap:
        feature_map = FeatureMap(op.name, _hwc(op.tensor.shape))
        if region:
            feature_map.region = region
        self.lowered.maps[op.name] = feature_map
        return feature_map

    # parameters

    def place(self, data: bytes) -> int:
        """Bytes into the next slot of REG_0; returns their address."""
        address = len(self.blob)
        self.blob += data
        self.blob += bytes(align(len(self.blob), SLOT) - len(self.blob))
        return address

    def constant(self, name: str) -> int:
        """Address in REG_0 of a const-fix op's data."""
        if name not in self.lowered.slots:
            data = np.ascontiguousarray(self.constants[name], np.int8)
            self.lowered.slots[name] = self.place(data.tobytes())
        return self.lowered.slots[name]

    def bias(self, op: Op, channels: int) -> int:
        """Address of an op's bias, of zeros when it has none."""
        if "bias" in op.inputs:
            return self.constant(op.inputs["bias"][0])
        if channels not in self.zero_bias:
            self.zero_bias[channels] = self.place(bytes(channels))
        return self.zero_bias[channels]

    # ops

    def upload(self, op: Op) -> None:
        self.job.inputs.append(self.new_map(op, INPUT))

    def download(self, op: Op) -> None:
        feature_map = self.job.source(self.map_of(op.input_names[0]))
        if feature_map.region == INPUT:
            raise UserError(f"op {op.name!r}: downloads an input, there is nothing to compute")
        feature_map.region = OUTPUT
        if feature_map not in self.job.outputs:
            self.job.outputs.append(feature_map)

    def nothing(self, op: Op) -> None:
        pass

    def reshape(self, op: Op) -> None:
        """No code: the bytes in DDR, where a map lies without gaps, are read as another map."""
        read = self.map_of(op.input_names[0])
        readers = {reader.type for reader in self.graph.consumers(op.name)}
        if _hwc(op.tensor.shape) == read.shape or readers <= {"download"}:
            self.lowered.maps[op.name] = read
            return
        source = self.job.source(read)
        view = source.reshaped(op.name, _hwc(op.tensor.shape))
        self.job.views.append((view, source))
        self.lowered.maps[op.name] = view

    def conv(self, op: Op) -> None:
        self._weighted(op, "conv")

    def depthwise(self, op: Op) -> None:
        self._weighted(op, "depthwise")

    def transposed(self, op: Op) -> None:
        self._weighted(op, "transposed_conv")

    def transposed_depthwise(self, op: Op) -> None:
        self._weighted(op, "transposed_depthwise")

    def _weighted(self, op, kind):
        (source,) = op.inputs["input"]
        (weights,) = op.inputs["weights"]
        dilation = tuple(op.attr("dilation"))[::-1]
        if dilation != (1, 1):
            if kind != "conv" or list(op.attr("stride")) != [1, 1]:
                raise UserError(
                    f"op {op.name!r}: dilation {op.attr('dilation')} is not supported, only [1, 1]"
                )
            kind = "dilated_conv"
        shape = self.graph.op(weights).tensor.shape
        if "depthwise" in kind and shape[0] != 1:
            raise UserError(f"op {op.name!r}: channel multiplier {shape[0]} is not supported, only 1")
        # PyTorch's depthwise convolutions say that each channel is a group of its own
        groups = {1, shape[3]} if "depthwise" in kind else {1}
        if op.attrs.get("group", 1) not in groups:
            raise UserError(f"op {op.name!r}: group {op.attr('group')} is not supported, only 1")
        fix_in = self._fix_point(source) + self._fix_point(weights)
        shift_bias = 1
        if "bias" in op.inputs:
            # a compiled graph holds a bias below the field's reach shifted (`device.dpuczdx8g.stored_bias`)
            shift_bias = max(fix_in - self._fix_point(op.inputs["bias"][0]), HARDWARE_SHIFT_BIAS_MIN) + 1
        self._limits(op, "shift_bias + 1", shift_bias, 0, SHIFT_BIAS_MAX)
        shift_cut = fix_in - op.tensor.fix_point
        self._limits(op, "shift_cut", shift_cut, 0, SHIFT_CUT_MAX)
        feature_map, geometry = self.map_of(source), self._geometry(op, kind)
        if self._can_augment(op, feature_map):
            feature_map, geometry = self._augment(op, feature_map, geometry)
        activations = ("NONE", "RELU", "RELU6")
        if KINDS[kind].engine == "convolution":
            activations += ("LEAKYRELU",)
        if kind == "dilated_conv":
            geometry["dilation"] = dilation
            whole, feature_map = feature_map, feature_map.every((1, 1), (0, 0), feature_map.shape[:2])
            self.job.views.append((feature_map, self.job.source(whole)))
        elif KINDS[kind].phases_as:
            rows, columns = geometry["kernel"]
            geometry["pad"] = rows - 1 - geometry["pad"][0], columns - 1 - geometry["pad"][1]
            if any(step > size for step, size in zip(geometry["stride"], geometry["kernel"], strict=True)):
                geometry["zeros"] = self.place(bytes(int(np.prod(shape))))
        self.job.operations.append(
            Operation(
                op.name,
                kind,
                [feature_map],
                self.new_map(op),
                **geometry,
                activation=_engine_activation(op, activations),
                # bias before weights, the vendor's order in REG_0
                bias=self.bias(op, op.tensor.shape[-1]),
                weights=self.constant(weights),
                shift_cut=shift_cut,
                shift_bias=shift_bias,
            )
        )

    def _can_augment(self, op, feature_map):
        """Marked by the reference compiler, and on an input of the subgraph."""
        return op.attrs.get("channel_augmentation") == 1 and feature_map.region == INPUT

    def _augment(self, op, feature_map, geometry):
        """The convolution on a view of its input with one kernel column.

        A row's first LOAD begins `left` pixels before the row, for row 0 before the input: it
        stands behind a margin in its region. As in the vendor's files (five of compilers 2.5 to
        3.5) that is where pixel (0, 0) would lie in a padded image; behind the input is room for
        the padding below and on the right.
        """
        left, right, top, bottom = op.attr("pad")
        row, pixel = feature_map.row_bytes, feature_map.pixel_bytes
        before = top * (row + (left + right) * pixel) + left * pixel
        margins = (align(before), bottom * row + right * pixel)
        feature_map.margins = tuple(map(max, feature_map.margins, margins))
        width = op.tensor.shape[2]
        view = feature_map.overlapping(geometry["kernel"][1], geometry["stride"][1], left, width)
        self.job.views.append((view, feature_map))
        self.lowered.augmented.add(op.name)
        kernel, stride = (geometry["kernel"][0], 1), (geometry["stride"][0], 1)
        return view, {"kernel": kernel, "stride": stride, "pad": (geometry["pad"][0], 0)}

    def pool(self, op: Op) -> None:
        (source,) = op.inputs["input"]
        kind = {"MAX": "max_pool", "AVG": "avg_pool"}.get(op.attr("type"))
        if kind is None:
            raise UserError(
                f"op {op.name!r}: pool type {op.attr('type')!r} is not supported, only MAX and AVG"
            )
        if kind == "avg_pool" and any(op.attr("pad")) and not op.attrs.get("count_include_pad", True):
            kind = "avg_pool_inside"
        geometry = self._geometry(op, kind)
        factor = average_pool_factor(*geometry["kernel"]) if kind == "avg_pool" else (1, 0)
        shift = self._fix_point(source) - op.tensor.fix_point
        name = "fix_point of the input less that of the output (and the average's shift)"
        self._limits(op, name, shift + factor[1], *POOL_SHIFT_RANGE)
        self.job.operations.append(
            Operation(
                op.name,
                kind,
                [self.map_of(source)],
                self.new_map(op),
                **geometry,
                shift_cut=shift,
                multiplier=factor,
            )
        )

    def hard_sigmoid(self, op: Op) -> None:
        (source,) = op.inputs["input"]
        shift_bias, shift_cut = op.attr("hsigmoid_in"), op.attr("shift_hsigmoid")
        self._limits(op, "hsigmoid_in", shift_bias, 0, 15)
        self._limits(op, "shift_hsigmoid", shift_cut, 0, 31)
        self.job.operations.append(
            Operation(
                op.name,
                "hard_sigmoid",
                [self.map_of(source)],
                self.new_map(op),
                shift_cut=shift_cut,
                shift_bias=shift_bias,
            )
        )

    def _geometry(self, op, kind):
        kernel_w, kernel_h = op.attr("kernel")
        stride_w, stride_h = op.attr("stride")
        left, _, top, _ = op.attr("pad")
        alu = KINDS[kind].engine == "alu"
        for number in (kernel_w, kernel_h):
            self._limits(op, "kernel", number, 1, ALU_MAX if alu else CONV_KERNEL_MAX)
        for number in (stride_w, stride_h):
            self._limits(op, "stride", number, 1, ALU_MAX if alu else CONV_STRIDE_MAX)
        self._limits(op, "pad left", left, 0, PAD_MAX)
        self._limits(op, "pad top", top, 0, PAD_MAX)
        return {"kernel": (kernel_h, kernel_w), "stride": (stride_h, stride_w), "pad": (top, left)}

    def _fix_point(self, name):
        fix_point = self.graph.op(name).tensor.fix_point
        if fix_point is None:
            raise UserError(f"op {name!r}: its tensor has no fix_point")
        return fix_point

    def _limits(self, op, name, value, least, greatest):
        if not least <= value <= greatest:
            raise UserError(f"op {op.name!r}: {name} is {value}; the DPU takes {least} to {greatest}")


def _hwc(shape):
    """(height, width, channels) of a tensor shape [1, H, W, C] or [1, N]."""
    shape = tuple(shape)[1:]
    if len(shape) > 3:
        raise UserError(f"a tensor of shape {shape} is not a feature map")
    return (1,) * (3 - len(shape)) + shape


def _engine_activation(op, allowed):
    """The activation that the engine must have: its RELU6 clamps at integer 96 whatever the fix_point.

    Above fix_point 4 the value 6.0 lies beyond int8, so RELU and saturation are exact (
    docs/reference/numerics.md, "Fused activations").
    """
    name = activation(op, allowed)
    return "RELU" if name == "RELU6" and op.tensor.fix_point > RELU6_FIX_POINT else name


HANDLERS = {
    "upload": _Reader.upload,
    "download": _Reader.download,
    "const-fix": _Reader.nothing,
    "downsample-fix": resizing.downsample,
    "transposed-conv2d-fix": _Reader.transposed,
    "transposed-depthwise-conv2d-fix": _Reader.transposed_depthwise,
    "upsample-fix": resizing.upsample,
    "conv2d-fix": _Reader.conv,
    "depthwise-conv2d-fix": _Reader.depthwise,
    "pool-fix": _Reader.pool,
    "hard-sigmoid-fix": _Reader.hard_sigmoid,
    "eltwise-fix": joining.eltwise,
    "depthwise-fix": joining.scale,
    "pixel-shuffle-fix": shuffling.pixel_shuffle,
    "concat-fix": joining.concat,
    "reshape-fix": _Reader.reshape,
}
