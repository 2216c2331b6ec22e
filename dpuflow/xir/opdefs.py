"""The ops of XIR 3.5: input arguments and attributes with their kinds (docs/reference/xmodel.md).

An input argument reads ``name`` (required), ``name?`` (optional) or ``name+`` (one or more);
an attribute reads ``name kind`` with ``[n]`` for a list of n, and ``= default`` when it may be left out.
"""

import json
import re
from dataclasses import dataclass, field

from dpuflow.xir.attributes import decode, kind_of
from dpuflow.xir.schema import OCCURRENCE

_CONV = ("kernel int32_vec[2]", "stride int32_vec[2]", "dilation int32_vec[2] = [1, 1]")
_PAD = "pad int32_vec[4] = [0, 0, 0, 0]"
_CONV_FLOAT = (*_CONV, "pad_mode string", _PAD)
_CONV_FIX = (
    *(*_CONV, _PAD, 'nonlinear string = ""', "hsigmoid_in int32 = -128"),
    *("shift_hsigmoid int32 = -128", "shift_hswish int32 = -128"),
)
_SOURCE = ("shape int32_vec", "data_type string")
_FIX = ("fix_point int32", "bit_width int32", "round_mode string", "if_signed bool")
_POOL = ("kernel int32_vec[2]", "stride int32_vec[2]", "pad_mode string", _PAD, "global bool = false")
_GROUP = "group int32 = 1"
_RESAMPLE = (
    *("mode string", "align_corners bool = false"),
    *("half_pixel_centers bool = false", "scale float_vec[2]"),
)
_SLICE = ("begin int32_vec", "end int32_vec", "strides int32_vec")
_REDUCTION = ("axis int32_vec", "keep_dims bool")

TABLE = {
    "data": ("", "FLOAT", _SOURCE),
    "const": ("", "FLOAT", (*_SOURCE, "data bytes")),
    "data-fix": ("", "XINT", _SOURCE),
    "const-fix": ("", "XINT", (*_SOURCE, "data bytes")),
    "fix": ("input", "FLOAT", _FIX),
    "fix2float": ("input", "XINT", _FIX),
    "float2fix": ("input", "FLOAT", _FIX),
    "conv2d": ("input weights bias?", "FLOAT", (*_CONV_FLOAT, _GROUP)),
    "conv2d-fix": ("input weights bias?", "XINT", (*_CONV_FIX, _GROUP)),
    "depthwise-conv2d": ("input weights bias?", "FLOAT", _CONV_FLOAT),
    "depthwise-conv2d-fix": ("input weights bias?", "XINT", _CONV_FIX),
    "transposed-conv2d": ("input weights bias?", "FLOAT", _CONV_FLOAT),
    "transposed-conv2d-fix": ("input weights bias?", "XINT", _CONV_FIX),
    "relu": ("input", "FLOAT", ()),
    "relu6": ("input", "FLOAT", ()),
    "leaky-relu": ("input", "FLOAT", ("alpha float",)),
    "prelu": ("input weight", "FLOAT", ()),
    "sigmoid": ("input", "FLOAT", ()),
    "hard-sigmoid": ("input", "FLOAT", ()),
    "hard-sigmoid-fix": ("input", "FLOAT", ()),
    "hard-swish": ("input", "FLOAT", ()),
    "maxpool2d": ("input", "FLOAT", _POOL),
    "avgpool2d": (
        *("input", "FLOAT"),
        (*_POOL, "count_include_pad bool = true", "count_include_invalid bool = true"),
    ),
    "pool-fix": ("input", "XINT", ("kernel int32_vec[2]", "stride int32_vec[2]", _PAD, "type string")),
    "upsample-fix": ("input size?", "XINT", _RESAMPLE),
    "downsample-fix": ("input size?", "XINT", _RESAMPLE),
    "inner-product": ("input weights bias?", "FLOAT", ("axis int32",)),
    "matmul": ("input+ bias?", "FLOAT", ("transpose_a bool", "transpose_b bool")),
    "eltwise-fix": ("input+", "XINT", ('nonlinear string = "NONE"', 'type string = "ADD"')),
    "depthwise-fix": ("input+", "XINT", ('type string = "MUL"',)),
    "add": ("input+", "FLOAT", ()),
    "sub": ("input+", "FLOAT", ()),
    "mul": ("input+", "FLOAT", ()),
    "div": ("input+", "FLOAT", ()),
    "concat": ("input+", "FLOAT", ("axis int32",)),
    "concat-fix": ("input+", "XINT", ("axis int32",)),
    "reshape": ("input shape?", "FLOAT", ("shape int32_vec = [0]",)),
    "reshape-fix": ("input", "XINT", ("shape int32_vec",)),
    "stack": ("input+", "FLOAT", ("axis int32",)),
    "flatten": ("input", "FLOAT", ("start_axis int32", "end_axis int32")),
    "squeeze": ("input", "FLOAT", ("axis int32_vec = []",)),
    "transpose": ("input", "FLOAT", ("order int32_vec",)),
    "pad": ("input", "FLOAT", ("paddings int32_vec", "mode string", "constant_values float_vec = []")),
    "pad-fix": ("input", "XINT", ("paddings int32_vec", "mode string", 'constant_values bytes = ""')),
    "softmax": ("input", "FLOAT", ("axis int32",)),
    "hard-softmax": ("input", "FLOAT", ("axis int32", "type string")),
    "argmax": ("input", "FLOAT", ("axis int32",)),
    "argmax-fix": ("input", "XINT", ("axis int32",)),
    "reduction_mean": ("input", "FLOAT", _REDUCTION),
    "reduction_max": ("input", "FLOAT", _REDUCTION),
    "reduction_max-fix": ("input", "XINT", _REDUCTION),
    "strided_slice": ("input", "FLOAT", _SLICE),
    "strided_slice-fix": ("input", "FLOAT", _SLICE),
    "batchnorm": ("input gamma beta moving_mean moving_var", "FLOAT", ("axis int32", "epsilon float")),
    "scale": ("input scale bias?", "FLOAT", ("axis int32 = -1",)),
    "threshold": ("input threshold", "XINT", ()),
    "upload": ("input", "FLOAT", ()),
    "download": ("input", "XINT", ()),
    "identity": ("input", "XINT", ()),
}
"""op type -> (input arguments, their declared data type, attributes). XIR does not enforce the data type."""


@dataclass(frozen=True)
class ArgDef:
    """One input argument: at least one op if `required`, several ops only if `repeated`."""

    name: str
    required: bool
    repeated: bool


@dataclass(frozen=True)
class AttrDef:
    """One attribute: its kind (`schema.KINDS`), list length (None: any) and default if not required."""

    name: str
    kind: str
    length: int | None
    required: bool
    default: object = None


@dataclass(frozen=True)
class OpDef:
    """Definition of an op type."""

    type: str
    data_type: str
    args: dict[str, ArgDef] = field(default_factory=dict)
    attrs: dict[str, AttrDef] = field(default_factory=dict)


def _argument(text):
    return ArgDef(text.rstrip("?+"), not text.endswith("?"), text.endswith("+"))


def _attribute(text):
    match = re.fullmatch(r"(\w+) (\w+?)(?:\[(\d+)\])?(?: = (.*))?", text)
    name, kind, length, default = match.groups()
    value = json.loads(default) if default is not None else None
    if kind == "bytes" and value is not None:
        value = value.encode()
    return AttrDef(name, kind, int(length) if length else None, default is None, value)


def _definition(type_, args, data_type, attrs):
    arguments = [_argument(text) for text in args.split()]
    attributes = [_attribute(text) for text in attrs]
    return OpDef(type_, data_type, {a.name: a for a in arguments}, {a.name: a for a in attributes})


OPDEFS = {type_: _definition(type_, *row) for type_, row in TABLE.items()}
"""op type -> OpDef."""

COMMON_OP_ATTRS = {
    "device": "string",
    "workload": "uint64",
    "workload_on_arch": "uint64",
    "channel_augmentation": "int32",
    "pad_mode": "string",
    "hsigmoid_in": "int32",
    "shift_hsigmoid": "int32",
    "LEAKYRELU_alpha": "float",
    "bias_term": "bool",
    "in_dim": "int32",
    "out_dim": "int32",
    "quant_in_bit_width": "int32",
    "quant_in_quantize_pos": "int32",
    "quant_in_round_mode": "int32",
    "quant_in_signed": "bool",
    "quant_out_bit_width": "int32",
    "quant_out_quantize_pos": "int32",
    "quant_out_round_mode": "int32",
    "quant_out_signed": "bool",
}
"""Attributes that the vendor's tools put on ops beyond the definitions (docs/reference/xmodel.md) -> kind."""

INFORMATIVE = frozenset(
    name
    for name in COMMON_OP_ATTRS
    if name in ("bias_term", "in_dim", "out_dim") or name.startswith("quant_")
)
"""Those of them that nothing reads; older tools may have written them otherwise."""

TENSOR_ATTRS = {
    "fix_point": "int32",
    "bit_width": "int32",
    "if_signed": "bool",
    "round_mode": "string",
    "location": "int32",
    "reg_id": "int32",
    "ddr_addr": "int32",
    "stride": "int32_vec",
    **{name: kind for name, kind in COMMON_OP_ATTRS.items() if name.startswith("quant_")},
}
"""Attributes of tensors -> kind (docs/reference/xmodel.md)."""

SUBGRAPH_ATTRS = {
    "device": "string",
    "workload": "uint64",
    "workload_on_arch": "uint64",
    "runner": "map_string_2_string",
    "dpu_name": "string",
    "dpu_fingerprint": "uint64",
    "children_topological_sort": "string_vec",
    "debug_mode": "string",
    "if_prefetch": "bool",
    "skip_code_gen": "bool",
    "mc_code": "bytes",
    "mc_code_preload": "bytes",
    "reg_id_to_context_type": "map_string_2_string",
    "reg_id_to_context_type_v2": "map_string_2_string",
    "reg_id_to_hw_segment": "map_string_2_string",
    "reg_id_to_parameter_value": "map_string_2_bytes",
    "reg_id_to_size": "map_string_2_int32",
}
"""Attributes of subgraphs -> kind (docs/reference/xmodel.md)."""

GRAPH_ATTRS = {
    "origin": "string",
    "files_md5sum": "map_string_2_string",
    "libs_info": "map_string_2_string",
    "tools_commit_id": "string",
    "return_ops": "string_vec",
    "input_subtract": "double",
    "input_divide": "double",
    "class_count": "int32",
    "dpuflow_note": "string",
}
"""Attributes of the graph -> kind (docs/reference/xmodel.md); the last four are our own."""


def op_attr_kinds(type_):
    """Attribute name -> kind for an op type: the common ones, overridden by its definition."""
    definition = OPDEFS.get(type_)
    kinds = dict(COMMON_OP_ATTRS)
    if definition is None:
        return {**kinds, "shape": "int32_vec", "data_type": "string"}
    return {**kinds, **{attr.name: attr.kind for attr in definition.attrs.values()}}


# fmt: off
OTHER_TYPES = frozenset((
    "cast", "celu", "conv1d", "conv3d", "conv3d-fix", "correlation1d_elemwise", "correlation1d_elemwise-fix",
    "correlation2d_elemwise", "correlation2d_elemwise-fix", "cost_volume", "cost_volume-fix",
    "depthwise-conv3d", "depthwise-conv3d-fix", "elu", "exp", "gelu", "groupnorm", "gstiling", "hard-tanh",
    "instancenorm", "l2_normalize", "max", "maxpool1d", "min", "mish", "neg", "pixel-shuffle",
    "pixel-shuffle-fix", "placeholder", "priorbox", "random_standard_normal", "reduction_product",
    "reduction_sum", "reorg", "reorg-fix", "resize", "selu", "shape", "swish", "tanh", "tile-fix",
    "transposed-conv3d", "transposed-conv3d-fix", "transposed-depthwise-conv2d",
    "transposed-depthwise-conv2d-fix", "transposed-depthwise-conv3d", "transposed-depthwise-conv3d-fix",
))
# fmt: on
"""The other types that XIR 3.5 defines; nothing here writes or executes them."""


def from_proto(proto):
    """OpDef of a definition stored in a file (Graph.op_defs)."""
    arguments = {
        arg.name: ArgDef(arg.name, OCCURRENCE[arg.occur_type & 3] in _REQUIRED, arg.occur_type & 3 >= 2)
        for arg in proto.input_args
    }
    attributes = {}
    for attr in proto.attrs:
        kind = kind_of(attr.default_value)
        if kind is not None:
            length = attr.list_length if kind.endswith("_vec") else 0
            required = attr.occur_type == OCCURRENCE.index("REQUIRED")
            default = None if required else decode(attr.default_value)
            attributes[attr.name] = AttrDef(attr.name, kind, length or None, required, default)
    return OpDef(proto.name, "UNKNOWN", arguments, attributes)


_REQUIRED = ("REQUIRED", "REQUIRED_AND_REPEATED")
