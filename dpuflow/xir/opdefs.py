"""The ops of XIR 3.5: input arguments and attributes with their kinds (docs/reference/xmodel.md).

An input argument reads ``name`` (required), ``name?`` (optional) or ``name+`` (one or more);
an attribute reads ``name kind`` with ``[n]`` for a list of n, and ``= default`` when it may be left out.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
    "data": ("", "FLOAT", _SOURCE, "given"),
    "const": ("", "FLOAT", (*_SOURCE, "data bytes"), "given"),
    "data-fix": ("", "XINT", _SOURCE, "given"),
    "const-fix": ("", "XINT", (*_SOURCE, "data bytes"), "given"),
    "fix": ("input", "FLOAT", _FIX, "same"),
    "fix2float": ("input", "XINT", _FIX, "same"),
    "float2fix": ("input", "FLOAT", _FIX, "same"),
    "conv2d": ("input weights bias?", "FLOAT", (*_CONV_FLOAT, _GROUP), "conv"),
    "conv2d-fix": ("input weights bias?", "XINT", (*_CONV_FIX, _GROUP), "conv"),
    "depthwise-conv2d": ("input weights bias?", "FLOAT", _CONV_FLOAT, "conv"),
    "depthwise-conv2d-fix": ("input weights bias?", "XINT", _CONV_FIX, "conv"),
    "transposed-conv2d": ("input weights bias?", "FLOAT", _CONV_FLOAT, "transposed_conv"),
    "transposed-conv2d-fix": ("input weights bias?", "XINT", _CONV_FIX, "transposed_conv"),
    "transposed-depthwise-conv2d": ("input weights bias?", "FLOAT", _CONV_FLOAT, "transposed_conv"),
    "transposed-depthwise-conv2d-fix": ("input weights bias?", "XINT", _CONV_FIX, "transposed_conv"),
    "relu": ("input", "FLOAT", (), "same"),
    "relu6": ("input", "FLOAT", (), "same"),
    "leaky-relu": ("input", "FLOAT", ("alpha float",), "same"),
    "prelu": ("input weight", "FLOAT", (), "same"),
    "sigmoid": ("input", "FLOAT", (), "same"),
    "exp": ("input", "FLOAT", (), "same"),
    "tanh": ("input", "FLOAT", (), "same"),
    "hard-sigmoid": ("input", "FLOAT", (), "same"),
    "hard-sigmoid-fix": ("input", "FLOAT", (), "same"),
    "hard-swish": ("input", "FLOAT", (), "same"),
    "maxpool2d": ("input", "FLOAT", _POOL, "pool"),
    "avgpool2d": (
        *("input", "FLOAT"),
        (*_POOL, "count_include_pad bool = true", "count_include_invalid bool = true"),
        "pool",
    ),
    "pool-fix": (
        "input",
        "XINT",
        ("kernel int32_vec[2]", "stride int32_vec[2]", _PAD, "type string"),
        "pool",
    ),
    "resize": ("input size?", "FLOAT", (*_RESAMPLE[:3], "scale float_vec = []"), "resample"),
    "pixel-shuffle": ("input", "FLOAT", ("scale int32", "upscale bool"), "pixel_shuffle"),
    "pixel-shuffle-fix": (
        "input",
        "XINT",
        ("scale int32", "reverse bool"),
        "pixel_shuffle",
    ),
    "upsample-fix": ("input size?", "XINT", _RESAMPLE, "resample"),
    "downsample-fix": ("input size?", "XINT", _RESAMPLE, "resample"),
    "inner-product": ("input weights bias?", "FLOAT", ("axis int32",), "inner_product"),
    "matmul": ("input+ bias?", "FLOAT", ("transpose_a bool", "transpose_b bool"), "matmul"),
    "eltwise-fix": ("input+", "XINT", ('nonlinear string = "NONE"', 'type string = "ADD"'), "broadcast"),
    "depthwise-fix": ("input+", "XINT", ('type string = "MUL"',), "broadcast"),
    "add": ("input+", "FLOAT", (), "broadcast"),
    "sub": ("input+", "FLOAT", (), "broadcast"),
    "mul": ("input+", "FLOAT", (), "broadcast"),
    "div": ("input+", "FLOAT", (), "broadcast"),
    "max": ("input+", "FLOAT", (), "broadcast"),
    "min": ("input+", "FLOAT", (), "broadcast"),
    "neg": ("input", "FLOAT", (), "same"),
    "concat": ("input+", "FLOAT", ("axis int32",), "concat"),
    "concat-fix": ("input+", "XINT", ("axis int32",), "concat"),
    "reshape": ("input shape?", "FLOAT", ("shape int32_vec = [0]",), "reshape"),
    "reshape-fix": ("input", "XINT", ("shape int32_vec",), "reshape"),
    "stack": ("input+", "FLOAT", ("axis int32",), "stack"),
    "flatten": ("input", "FLOAT", ("start_axis int32", "end_axis int32"), "flatten"),
    "squeeze": ("input", "FLOAT", ("axis int32_vec = []",), "squeeze"),
    "transpose": ("input", "FLOAT", ("order int32_vec",), "transpose"),
    "pad": ("input", "FLOAT", ("paddings int32_vec", "mode string", "constant_values float_vec = []"), "pad"),
    "pad-fix": ("input", "XINT", ("paddings int32_vec", "mode string", 'constant_values bytes = ""'), "pad"),
    "softmax": ("input", "FLOAT", ("axis int32",), "same"),
    "hard-softmax": ("input", "FLOAT", ("axis int32", "type string"), "same"),
    "argmax": ("input", "FLOAT", ("axis int32",), "stored"),
    "argmax-fix": ("input", "XINT", ("axis int32",), "stored"),
    "reduction_mean": ("input", "FLOAT", _REDUCTION, "reduce"),
    "reduction_sum": ("input", "FLOAT", _REDUCTION, "reduce"),
    "reduction_max": ("input", "FLOAT", _REDUCTION, "reduce"),
    "reduction_max-fix": ("input", "XINT", _REDUCTION, "reduce"),
    "strided_slice": ("input", "FLOAT", _SLICE, "stored"),
    "strided_slice-fix": ("input", "FLOAT", _SLICE, "stored"),
    "batchnorm": (
        "input gamma beta moving_mean moving_var",
        "FLOAT",
        ("axis int32", "epsilon float"),
        "same",
    ),
    "scale": ("input scale bias?", "FLOAT", ("axis int32 = -1",), "same"),
    "threshold": ("input threshold", "XINT", (), "same"),
    "upload": ("input", "FLOAT", (), "same"),
    "download": ("input", "XINT", (), "same"),
    "identity": ("input", "XINT", (), "same"),
}
"""op type -> (input arguments, their declared data type, attributes, rule of `shapes.RULES`).

XIR does not enforce the data type. "stored": there is no rule, the output is taken as the file has it.
"""


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
    default: Any = None


@dataclass(frozen=True)
class OpDef:
    """Definition of an op type; `shape` names the rule by which its output's shape is inferred."""

    type: str
    data_type: str
    args: Mapping[str, ArgDef] = field(default_factory=dict)
    attrs: Mapping[str, AttrDef] = field(default_factory=dict)
    shape: str = "stored"


def _argument(text):
    return ArgDef(text.rstrip("?+"), not text.endswith("?"), text.endswith("+"))


def _attribute(text):
    match = re.fullmatch(r"(\w+) (\w+?)(?:\[(\d+)\])?(?: = (.*))?", text)
    if match is None:
        raise ValueError(f"{text!r} is no attribute of an op: expected 'name kind[length] = default'")
    name, kind, length, default = match.groups()
    value = json.loads(default) if default is not None else None
    if kind == "bytes" and value is not None:
        value = value.encode()
    return AttrDef(name, kind, int(length) if length else None, default is None, value)


def define(type_: str, args: str, data_type: str, attrs: Sequence[str], shape: str) -> OpDef:
    """The OpDef of a row of `TABLE`."""
    arguments = [_argument(text) for text in args.split()]
    attributes = [_attribute(text) for text in attrs]
    return OpDef(type_, data_type, {a.name: a for a in arguments}, {a.name: a for a in attributes}, shape)


OPDEFS = {type_: define(type_, *row) for type_, row in TABLE.items()}
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
    "upscale": "bool",
    "count_include_pad": "bool",
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
"""Attributes beyond the definitions that the vendor's tools put on ops (docs/reference/xmodel.md) -> kind.

Of a pool-fix `count_include_pad` is our own.
"""

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
    "output_names": "string_vec",
    "input_subtract": "double",
    "input_divide": "double",
    "input_gain": "double",
    "input_subtract_each": "double_vec",
    "input_divide_each": "double_vec",
    "input_gain_each": "double_vec",
    "input_order": "string",
    "class_count": "int32",
    "dpuflow_note": "string",
}
"""Attributes of the graph -> kind (docs/reference/xmodel.md); ours are output_names and the last ones."""


def op_attr_kinds(type_: str) -> dict[str, str]:
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
    "depthwise-conv3d", "depthwise-conv3d-fix", "elu", "gelu", "groupnorm", "gstiling", "hard-tanh",
    "instancenorm", "l2_normalize", "maxpool1d", "mish",
    "placeholder", "priorbox", "random_standard_normal", "reduction_product",
    "reorg", "reorg-fix", "selu", "shape", "swish", "tile-fix",
    "transposed-conv3d", "transposed-conv3d-fix", "transposed-depthwise-conv3d",
    "transposed-depthwise-conv3d-fix",
))
# fmt: on
"""The other types that XIR 3.5 defines; nothing here writes or executes them."""


def from_proto(proto: Any) -> OpDef:
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
