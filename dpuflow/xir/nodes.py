"""Op, Tensor, Subgraph and the graph that holds them: views of the messages of an `.xmodel` file.

The messages stay as they were read, so whatever this code does not know (unknown fields,
op definitions, vendor attributes) is written again unchanged.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.xir import opdefs, schema
from dpuflow.xir.attributes import Attributes

Shape = tuple[int, ...]

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


class OpGraph:
    """The ops and subgraphs of a graph message: what the rules of XIR are asked of.

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
