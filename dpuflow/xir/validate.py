"""The rules an `.xmodel` must keep (docs/reference/xmodel.md).

Some of them XIR enforces by aborting, some only bite on the board or in Netron, and some
XIR accepts silently although the file is wrong; all are checked here. Each function returns
problems as sentences that name the op, tensor or subgraph; an empty list means none.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from dpuflow.base.errors import UserError
from dpuflow.base.numerics import ROUNDING
from dpuflow.xir import opdefs, shapes
from dpuflow.xir.nodes import OpGraph
from dpuflow.xir.schema import DATA_TYPES
from dpuflow.xir.tree import check_devices, check_tree

MAX_ELEMENTS = 2**31
"""Elements of one tensor: ddr_addr is an int32, so more cannot be addressed."""

EXPONENTS = ("fix_point", "hsigmoid_in", "shift_hsigmoid", "shift_hswish", "shift_cut", "shift_bias")
MAX_EXPONENT = 128
"""Attributes that shift by so many bits: the vendor's default for "none" is -128, real ones stay below 32."""

_PADDING = frozenset(("CONSTANT", "REFLECT", "SYMMETRIC", "0"))
_RESAMPLING = frozenset(("NEAREST", "BILINEAR", "TRILINEAR"))
CHOICES = {
    "nonlinear": {"", "NONE", "RELU", "PRELU", "LEAKYRELU", "RELU6", "HSIGMOID", "HSWISH"},
    "pad_mode": {"FLOOR", "CEIL", "SAME", "VALID"},
    "round_mode": set(ROUNDING),
    ("pool-fix", "type"): {"MAX", "AVG"},
    ("eltwise-fix", "type"): {"ADD", "MUL", "SUB", "DIV", "MAX", "MIN"},
    ("depthwise-fix", "type"): {"ADD", "MUL"},
    ("pad", "mode"): _PADDING,
    ("pad-fix", "mode"): _PADDING,
    ("upsample-fix", "mode"): _RESAMPLING,
    ("downsample-fix", "mode"): _RESAMPLING,
    ("resize", "mode"): _RESAMPLING,
}
"""(op type, attribute), or the attribute of any op -> values that XIR's definitions name; a `mode` may
be in small letters, and that of a pad the number 0 as text, as older tools wrote it."""
_MOVES_BYTES = ("reshape-fix", "upload", "download")
"""concat-fix is none of them: it may rescale its inputs (docs/reference/instruction-set.md, "Rules that
are none")."""
_NETRON_KINDS = {
    *("bool", "int32", "int32_vec", "uint32", "uint32_vec", "int64", "uint64", "float", "float_vec"),
    *("double", "double_vec", "string", "string_vec", "bytes", "map_string_2_int32"),
}


def require(problems: Sequence[str], source: Path | str) -> None:
    """Raise a UserError that names `source` and the first few problems, if there are any."""
    if problems:
        shown = "".join(f"\n  - {problem}" for problem in problems[:5])
        more = f"\n  and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError(f"{source}: not a valid xmodel:{shown}{more}")


def structure(graph: OpGraph) -> list[str]:
    """Problems that make a graph unreadable: names, order, tensors, subgraph tree, unset attributes."""
    problems, defined = [], set()
    names = {op.name for op in graph.ops}
    for op in graph.ops:
        if not op.name or not op.type:
            problems.append(f"op {op.name!r} has no name or no type")
        if op.name in defined:
            problems.append(f"two ops are called {op.name!r}")
        for name in op.input_names:
            if name not in names:
                problems.append(f"op {op.name!r} reads {name!r}, which does not exist")
            elif name not in defined:
                problems.append(f"op {op.name!r} reads {name!r}, which is not defined before it")
        defined.add(op.name)
        problems += _check_tensor(op)
    for place, attrs in _attribute_places(graph):
        unset = [name for name in attrs if attrs.kind(name) is None]
        problems += [f"{place}: attribute {name!r} has no value" for name in unset]
    return problems + check_tree(graph)


def _attribute_places(graph):
    """(description, Attributes) of everything in the graph that has attributes."""
    yield "graph", graph.attrs
    for op in graph.ops:
        yield f"op {op.name!r}", op.attrs
        yield f"tensor {op.tensor.name!r}", op.tensor.attrs
    for _, subgraph in graph.root.walk():
        yield f"subgraph {subgraph.name!r}", subgraph.attrs


def _check_tensor(op):
    if not op.proto.HasField("output_tensor"):
        return [f"op {op.name!r} has no output tensor"]
    tensor, problems = op.tensor, []
    if not 0 <= tensor.proto.data_type < DATA_TYPES.index("UNKNOWN"):
        problems.append(f"tensor {tensor.name!r} has the unknown data type {tensor.proto.data_type}")
    if not 1 <= tensor.bit_width <= 64:
        problems.append(f"tensor {tensor.name!r} has a bit width of {tensor.bit_width}")
    if not 0 < math.prod(tensor.shape) < MAX_ELEMENTS:
        problems.append(f"tensor {tensor.name!r} has the impossible shape {list(tensor.shape)}")
    return problems


def validate(graph: OpGraph, strict: bool = False, devices: bool = True) -> list[str]:
    """All problems of a graph; where names and order, or kinds of attributes, are wrong, only those.

    `strict` adds what files of our own keep on top: only ops of the definition table, no
    private (``__``) attributes, op attributes of kinds that Netron shows. Without `devices`,
    what only the board's runtime needs of the subgraphs may be missing.
    """
    problems = structure(graph)
    if problems:
        return problems  # the checks below rely on it
    definitions = _definitions(graph)
    for op in graph.ops:
        problems += _check_definition(op, definitions)
    problems += kinds(graph)
    if problems:
        return problems
    for op in graph.ops:
        problems += _check_output(graph, op) + _check_fixed_point(graph, op)
        if strict:
            problems += _check_strict(op)
    problems += _check_tensor_names(graph)
    if strict:
        problems += _missing_return_ops(graph)
    return problems + check_devices(graph, devices) + _check_const_data(graph)


def _definitions(graph):
    """Op definitions: the table's, then those the file itself brings."""
    known = dict(opdefs.OPDEFS)
    for proto in graph.proto.op_defs:
        if proto.name not in known:
            known[proto.name] = opdefs.from_proto(proto)
    return known


def _check_definition(op, definitions):
    """Arguments and attributes against the op's definition."""
    definition = definitions.get(op.type)
    if definition is None:
        if op.type in opdefs.OTHER_TYPES:
            return []
        wanted = {"shape": "int32_vec", "data_type": "string"}
        return [
            f"op {op.name!r}: unknown type {op.type!r} without attribute {name!r} ({kind})"
            for name, kind in wanted.items()
            if op.attrs.kind(name) != kind
        ]
    problems = []
    names = [arg.arg_name for arg in op.proto.args]
    for name in names:
        if name not in definition.args:
            problems.append(f"op {op.name!r} ({op.type}) has no argument called {name!r}")
        if names.count(name) > 1:
            problems.append(f"op {op.name!r} has argument {name!r} more than once")
    for arg in definition.args.values():
        count = len(op.inputs.get(arg.name, []))
        if arg.required and not count:
            problems.append(f"op {op.name!r} ({op.type}) lacks its argument {arg.name!r}")
        if count > 1 and not arg.repeated:
            problems.append(f"op {op.name!r}: argument {arg.name!r} takes one op, not {count}")
    for attr in definition.attrs.values():
        problems += _check_attribute(op, attr)
    extra = [name for name in op.attrs if name not in definition.attrs]
    return problems + [problem for name in extra for problem in _check_choice(op, name)]


def _check_attribute(op, attr):
    if attr.name not in op.attrs:
        return [f"op {op.name!r} ({op.type}) lacks the attribute {attr.name!r}"] if attr.required else []
    kind = op.attrs.kind(attr.name)
    if kind != attr.kind:
        return [f"op {op.name!r}: attribute {attr.name!r} is {kind}, XIR reads {attr.kind}"]
    value = op.attrs[attr.name]
    if attr.length and attr.kind.endswith("_vec") and len(value) != attr.length:
        return [f"op {op.name!r}: attribute {attr.name!r} has {len(value)} values instead of {attr.length}"]
    return _check_choice(op, attr.name)


def _check_choice(op, name):
    """A text attribute with fixed values holds one of them."""
    choices = CHOICES.get((op.type, name)) or CHOICES.get(name)
    if not choices or op.attrs.kind(name) != "string":
        return []
    value = op.attrs[name].upper() if name == "mode" else op.attrs[name]
    if value in choices:
        return []
    return [f"op {op.name!r}: {name} {op.attrs[name]!r} is none of {', '.join(sorted(choices - {''}))}"]


def _check_output(graph, op):
    """The stored output against the inferred one; XIR does not compare the two."""
    tensor = op.tensor
    try:
        if shapes.known(op.type):
            shape, data_type, bit_width = shapes.infer(graph, op)
        elif op.type in shapes.UNCHECKED:
            return []
        else:  # an op that the file brings itself says what it makes (`_check_definition`)
            shape, (data_type, bit_width) = op.attrs["shape"], shapes.parse_data_type(op.attrs["data_type"])
    except shapes.ShapeError as error:
        return [f"op {op.name!r} ({op.type}): {error}"]
    problems = []
    if tuple(shape) != tensor.shape:
        problems.append(f"op {op.name!r}: output is stored as {list(tensor.shape)} but must be {list(shape)}")
    if (data_type, bit_width) != (tensor.data_type, tensor.bit_width):
        stored = f"{tensor.data_type}{tensor.bit_width}"
        problems.append(f"op {op.name!r}: output is stored as {stored} but must be {data_type}{bit_width}")
    return problems


def _check_fixed_point(graph, op):
    """Quantized tensors say how to read them; ops that only move bytes keep the fix_point."""
    problems, tensor = [], op.tensor
    if op.type.endswith("-fix") and tensor.data_type in ("FLOAT", "BFLOAT"):
        problems.append(f"op {op.name!r} ({op.type}) has a float output")
    if tensor.data_type in ("XINT", "XUINT"):
        for name in ("fix_point", "bit_width", "if_signed", "round_mode"):
            if name not in tensor.attrs:
                problems.append(f"tensor {tensor.name!r} ({tensor.data_type}) lacks the attribute {name!r}")
        if tensor.attrs.get("bit_width", tensor.bit_width) != tensor.bit_width:
            problems.append(f"tensor {tensor.name!r}: attribute bit_width is not its {tensor.bit_width} bits")
    for place, attrs in ((f"op {op.name!r}", op.attrs), (f"tensor {tensor.name!r}", tensor.attrs)):
        if attrs.kind("round_mode") == "string" and attrs["round_mode"] not in ROUNDING:
            problems.append(f"{place}: round_mode {attrs['round_mode']!r} is none of {', '.join(ROUNDING)}")
        for name in EXPONENTS:
            if name in attrs and not -MAX_EXPONENT <= attrs[name] <= MAX_EXPONENT:
                problems.append(f"{place}: {name} {attrs[name]} is beyond {MAX_EXPONENT} binary digits")
    found = {graph.op(name).tensor.fix_point for name in op.input_names} | {tensor.fix_point}
    if op.type in _MOVES_BYTES and len(found) > 1:
        problems.append(f"op {op.name!r} ({op.type}) joins different fix_points: {sorted(map(str, found))}")
    return problems


def _check_strict(op):
    problems = []
    if op.type not in opdefs.OPDEFS:
        problems.append(f"op {op.name!r}: type {op.type!r} is not in the table of ops")
    for name in op.attrs:
        if name.startswith("__"):
            problems.append(f"op {op.name!r}: attribute {name!r} is private by its name and would be dropped")
        kind = op.attrs.kind(name)
        if kind not in _NETRON_KINDS:
            problems.append(f"op {op.name!r}: attribute {name!r} is a {kind}, which Netron refuses")
    return problems


def _check_tensor_names(graph):
    seen, problems = set(), []
    for op in graph.ops:
        if not op.tensor.name or op.tensor.name in seen:
            problems.append(f"op {op.name!r}: tensor name {op.tensor.name!r} is empty or used twice")
        seen.add(op.tensor.name)
    return problems


def kinds(graph: OpGraph) -> list[str]:
    """Problems with the kinds of attributes beyond the op definitions: the readers expect exactly these."""
    places = [("graph", graph.attrs, opdefs.GRAPH_ATTRS)]
    for op in graph.ops:
        defined = opdefs.OPDEFS[op.type].attrs if op.type in opdefs.OPDEFS else ()
        common = {name: kind for name, kind in opdefs.COMMON_OP_ATTRS.items() if name not in defined}
        places.append((f"op {op.name!r}", op.attrs, common))
        places.append((f"tensor {op.tensor.name!r}", op.tensor.attrs, opdefs.TENSOR_ATTRS))
    for _, subgraph in graph.root.walk():
        places.append((f"subgraph {subgraph.name!r}", subgraph.attrs, opdefs.SUBGRAPH_ATTRS))
    return [
        f"{place}: attribute {name!r} is {attrs.kind(name)}, XIR reads {kinds[name]}"
        for place, attrs, kinds in places
        for name in attrs
        if name in kinds and attrs.kind(name) != kinds[name]
        if name not in opdefs.INFORMATIVE
    ]


def oddities(graph: OpGraph) -> list[str]:
    """What is odd in somebody else's file but does not keep it from running, as sentences."""
    return [f"{problem}; the ops that nobody reads are taken" for problem in _missing_return_ops(graph)]


def _missing_return_ops(graph):
    """Names in return_ops without an op: compiled PyTorch files name ops of the quantized graph."""
    if graph.attrs.kind("return_ops") != "string_vec":
        return []
    missing = [name for name in graph.attrs["return_ops"] if name not in graph]
    return [f"graph: return_ops names {name!r}, which does not exist" for name in missing]


def _check_const_data(graph):
    """A const holds all its bytes, or (compiled) its DPU subgraph's parameters do."""
    problems, parameters = [], {}
    for subgraph in graph.subgraphs("DPU"):
        regions = subgraph.attrs.get("reg_id_to_parameter_value") or {}
        parameters.update(dict.fromkeys(subgraph.op_names, regions))
    for op in graph.ops:
        if op.type not in ("const", "const-fix") or op.attrs.kind("data") != "bytes":
            continue
        needed = math.prod(op.tensor.shape) * op.tensor.bit_width // 8
        found = len(op.attrs["data"])
        attrs = op.tensor.attrs
        if found == 0 and op.name in parameters and {"reg_id", "ddr_addr"} <= set(attrs):
            region = parameters[op.name].get(f"REG_{attrs['reg_id']}", b"")
            found = min(needed, max(0, len(region) - attrs["ddr_addr"]))
        if found != needed:
            problems.append(f"op {op.name!r} ({op.type}) holds {found} bytes of data instead of {needed}")
    return problems
