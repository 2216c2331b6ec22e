"""Graph, Op, Tensor and Subgraph: views of the messages of an `.xmodel` file.

The messages stay as they were read, so whatever this code does not know (unknown fields,
op definitions, vendor attributes) is written again unchanged.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from google.protobuf.message import DecodeError, EncodeError

from dpuflow.base.errors import UserError
from dpuflow.base.files import write_bytes
from dpuflow.xir import opdefs, schema, shapes
from dpuflow.xir.attributes import Attributes
from dpuflow.xir.seal import sealed, unsealed
from dpuflow.xir.shapes import Shape

MAX_BYTES = 2**31 - 1
"""Protobuf's own limit for a message, hence for an xmodel file."""

_CONST_DTYPES = {"float32": "<f4", "xint8": "i1", "int8": "i1", "xint32": "<i4", "int32": "<i4"}


class Tensor:
    """Output tensor of an op."""

    def __init__(self, proto: Any) -> None:
        self.proto = proto
        self.attrs = Attributes(proto.tensor_attr, opdefs.TENSOR_ATTRS)

    @property
    def name(self) -> str:
        """Unique name; may differ from the op's."""
        return self.proto.tensor_name

    @property
    def shape(self) -> Shape:
        """Dimensions as a tuple; activations are NHWC."""
        return tuple(self.proto.tensor_dim)

    @shape.setter
    def shape(self, shape: Sequence[int]) -> None:
        self.proto.tensor_dim[:] = [int(n) for n in shape]

    @property
    def data_type(self) -> str:
        """Name from `schema.DATA_TYPES`, for instance "XINT"; "UNKNOWN" for any other number."""
        number = self.proto.data_type
        return schema.DATA_TYPES[number] if 0 <= number < len(schema.DATA_TYPES) else "UNKNOWN"

    @data_type.setter
    def data_type(self, name: str) -> None:
        self.proto.data_type = schema.DATA_TYPES.index(name)

    @property
    def bit_width(self) -> int:
        """Bits per element, for instance 8."""
        return self.proto.tensor_bit_width

    @bit_width.setter
    def bit_width(self, bits: int) -> None:
        self.proto.tensor_bit_width = bits

    @property
    def fix_point(self) -> int | None:
        """fix_point attribute: value = q * 2**-fix_point; None on a float tensor."""
        return self.attrs.get("fix_point")


class Op:
    """One node: an operation and its output tensor."""

    def __init__(self, proto: Any) -> None:
        self.proto = proto
        self.attrs = Attributes(proto.op_attr, opdefs.op_attr_kinds(proto.op_type))
        self.tensor = Tensor(proto.output_tensor)

    @property
    def name(self) -> str:
        """Name, unique in the graph."""
        return self.proto.op_name

    @property
    def type(self) -> str:
        """Op type, for instance "conv2d-fix"."""
        return self.proto.op_type

    @property
    def inputs(self) -> dict[str, list[str]]:
        """{argument name: [names of the ops that feed it]} (a copy; change it with `set_input`)."""
        return {arg.arg_name: list(arg.arg_ops) for arg in self.proto.args}

    @property
    def input_names(self) -> list[str]:
        """Names of all feeding ops, in argument order."""
        return [name for arg in self.proto.args for name in arg.arg_ops]

    def set_input(self, argument: str, names: Iterable[str]) -> None:
        """Let the ops `names` feed `argument` (added if the op has no such argument yet)."""
        for arg in self.proto.args:
            if arg.arg_name == argument:
                arg.arg_ops[:] = list(names)
                return
        self.proto.args.add(arg_name=argument, arg_ops=list(names))

    @property
    def device(self) -> str | None:
        """ "USER", "DPU", "CPU" or None when the graph is not compiled."""
        return self.attrs.get("device")

    def attr(self, name: str) -> Any:
        """Value of an attribute, or its default by the op's definition; KeyError when there is neither."""
        if name in self.attrs:
            return self.attrs[name]
        definition = opdefs.OPDEFS.get(self.type)
        if definition is None or name not in definition.attrs or definition.attrs[name].required:
            raise KeyError(f"op {self.name!r} ({self.type}) has no attribute {name!r}")
        return definition.attrs[name].default

    def array(self) -> np.ndarray | None:
        """`data` of a const or const-fix op as an array of the tensor's shape; None when it is empty.

        In a vendor-compiled file it is: the bytes lie in the DPU subgraph's
        reg_id_to_parameter_value (docs/reference/xmodel.md).
        """
        data = self.attrs["data"]
        if not data:
            return None
        if not isinstance(data, bytes):
            raise UserError(
                f"op {self.name!r}: attribute 'data' is {self.attrs.kind('data')}, XIR reads bytes"
            )
        type_ = self.attrs.get("data_type")
        dtype = _CONST_DTYPES.get(str(type_).lower())
        if dtype is None:
            raise UserError(f"op {self.name!r}: const data of type {type_!r} is not supported")
        try:
            return np.frombuffer(data, dtype).reshape(self.tensor.shape)
        except ValueError:
            raise UserError(
                f"op {self.name!r}: {len(data)} bytes of data do not fill a {type_} tensor "
                f"of shape {self.tensor.shape}"
            ) from None

    def __repr__(self) -> str:
        return f"Op({self.name!r}, {self.type!r}, shape={self.tensor.shape})"


class Subgraph:
    """A node of the subgraph tree: a leaf that lists ops, or an inner node with children."""

    def __init__(self, proto: Any) -> None:
        self.proto = proto
        self.attrs = Attributes(proto.subg_attr, opdefs.SUBGRAPH_ATTRS)

    @property
    def name(self) -> str:
        """Name, by convention subgraph_<first op>; the root's is "root"."""
        return self.proto.subgraph_name

    @property
    def op_names(self) -> list[str]:
        """Names of the ops below this node, in the order of the tree."""
        if not self.proto.subg_child:
            return list(self.proto.op_name)
        return [name for child in self.children for name in child.op_names]

    @property
    def is_leaf(self) -> bool:
        """Whether the node has no children."""
        return not self.proto.subg_child

    @property
    def children(self) -> list["Subgraph"]:
        """Child subgraphs, in execution order at the top level of a compiled file."""
        return [Subgraph(child) for child in self.proto.subg_child]

    @property
    def device(self) -> str | None:
        """ "USER", "DPU", "CPU" or None."""
        return self.attrs.get("device")

    def add_child(self, name: str, op_names: Iterable[str] = ()) -> "Subgraph":
        """Append a child and return it."""
        return Subgraph(self.proto.subg_child.add(subgraph_name=name, op_name=list(op_names)))

    def walk(self, depth: int = 0) -> Iterator[tuple[int, "Subgraph"]]:
        """Yield (depth, subgraph), this node first, depth first."""
        yield depth, self
        for child in self.children:
            yield from child.walk(depth + 1)

    def __repr__(self) -> str:
        return f"Subgraph({self.name!r}, device={self.device!r}, ops={len(self.op_names)})"


class Graph:
    """A whole `.xmodel`.

    Attributes
    ----------
    source : the file it was read from, for messages; None for a graph that was built here.
    """

    def __init__(self, name: str = "", proto: Any = None, source: Path | str | None = None) -> None:
        self.source = source
        self.proto = proto if proto is not None else schema.message("Graph")(graph_name=name)
        self.attrs = Attributes(self.proto.graph_attr, opdefs.GRAPH_ATTRS)
        self.ops = [Op(node) for node in self.proto.op_node]
        self._by_name = {op.name: op for op in self.ops}

    @classmethod
    def load(cls, path: Path | str, check: bool = True) -> Self:
        """Read a file; UserError when it is missing, not an xmodel, or (with `check`) ill-formed.

        `check` covers what every reader relies on (`validate.structure`); the full list of
        rules is `validate.validate`.
        """
        path = Path(path)
        try:
            if path.stat().st_size > MAX_BYTES:
                raise UserError(f"{path}: over 2 GiB, too large for an xmodel")
            data = path.read_bytes()
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
        return cls.from_bytes(data, path, check)

    @classmethod
    def from_bytes(cls, data: bytes, source: Path | str = "xmodel", check: bool = True) -> Self:
        """`load` from bytes; `source` names them in messages. A seal (`dpuflow.xir.seal`) is checked."""
        if not data:
            raise UserError(f"{source}: empty file; an .xmodel was expected. Remove it and make it again")
        proto = schema.message("Graph")()
        try:
            proto.ParseFromString(unsealed(data, source))
        except (DecodeError, UnicodeDecodeError):
            raise UserError(
                f"{source}: not an .xmodel, or truncated or corrupt (it does not parse as serial_v2.Graph); "
                "make it again or give another file"
            ) from None
        if not proto.op_node:
            raise UserError(
                f"{source}: not an .xmodel (no ops in it); give a file that vai_c_xir or dpuflow wrote"
            )
        graph = cls(proto=proto, source=source)
        if check:
            from dpuflow.xir import validate

            validate.require(validate.structure(graph), source)
        return graph

    def to_bytes(self) -> bytes:
        """The file's content without its seal; equal graphs give equal bytes (map entries sorted by key)."""
        try:
            return self.proto.SerializeToString(deterministic=True)
        except (EncodeError, ValueError) as error:
            raise UserError(f"graph {self.name!r} cannot be written as an xmodel: {error}") from None

    def save(self, path: Path | str, check: bool = True) -> None:
        """Write the file atomically; with `check`, UserError when a rule of `validate.validate` is broken.

        The check is the strict one; write somebody else's graph, custom ops included, without it.
        The file ends with a seal (`dpuflow.xir.seal`), which `load` checks and other readers skip.
        """
        if check:
            from dpuflow.xir import validate

            validate.require(validate.validate(self, strict=True), path)
        write_bytes(path, sealed(self.to_bytes()))

    @property
    def name(self) -> str:
        """Name of the graph."""
        return self.proto.graph_name

    @property
    def root(self) -> Subgraph:
        """Root of the subgraph tree (an empty leaf when the file has none)."""
        return Subgraph(self.proto.subg_root)

    def op(self, name: str) -> Op:
        """The op called `name`; KeyError when there is none."""
        return self._by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def consumers(self, name: str) -> list[Op]:
        """Ops that read the op `name`, in graph order."""
        return [op for op in self.ops if name in op.input_names]

    def subgraphs(self, device: str | None = None) -> list[Subgraph]:
        """Top-level subgraphs in execution order, only those of `device` ("USER", "DPU", "CPU") if given."""
        return [child for child in self.root.children if device is None or child.device == device]

    def add_op(
        self,
        name: str,
        type_: str,
        inputs: Mapping[str, str | Iterable[str]] | None = None,
        attrs: Mapping[str, Any] | None = None,
        tensor_name: str | None = None,
    ) -> Op:
        """Append an op and return it; its output tensor's shape and type are inferred (`dpuflow.xir.shapes`).

        inputs: {argument: op name or list of op names}, of ops that exist already. tensor_name: the
        op's name unless given. ValueError when the name is taken or inputs and attributes do not
        fit, KeyError when an input does not exist; the graph is then as before.
        """
        if name in self._by_name:
            raise ValueError(f"an op called {name!r} exists already")
        node = self.proto.op_node.add(op_name=name, op_type=type_)
        op = Op(node)
        try:
            for argument, names in (inputs or {}).items():
                op.set_input(argument, [names] if isinstance(names, str) else names)
            for key, value in (attrs or {}).items():
                op.attrs[key] = value
            node.output_tensor.tensor_name = tensor_name or name
            op.tensor.shape, op.tensor.data_type, op.tensor.bit_width = shapes.infer(self, op)
        except Exception:
            del self.proto.op_node[-1]
            raise
        self.ops.append(op)
        self._by_name[name] = op
        return op
