"""The part of the Python package `xir` that applications use to look into a model.

Names and behaviour follow the binding's published source (Vitis AI 3.5); where the
binding aborts the process, a RuntimeError is raised here.
"""

from typing import TYPE_CHECKING, Any

from dpuflow.base.errors import UserError

if TYPE_CHECKING:  # when it runs, `deserialize` imports it: asking the board what it is stays quick
    from dpuflow import xir


class _Attributed:
    """has_attr, get_attr, get_attrs over a dpuflow.xir object's `attrs`."""

    _object: "xir.Tensor | xir.Op | xir.Subgraph | xir.Graph"

    def has_attr(self, name: str) -> bool:
        """Whether the attribute exists."""
        return name in self._object.attrs

    def get_attr(self, name: str) -> Any:
        """Value of an attribute; RuntimeError when there is none."""
        if name not in self._object.attrs:
            raise RuntimeError(f"[XIR_UNREGISTERED_ATTR] {self!r} has no attribute {name!r}")
        return self._object.attrs[name]

    def get_attrs(self) -> dict[str, Any]:
        """All attributes as a dict."""
        return {name: self._object.attrs[name] for name in self._object.attrs}


class Tensor(_Attributed):
    """A tensor: name, dims (list, batch first), dtype ("xint8", "float32"), attributes."""

    _object: "xir.Tensor"

    def __init__(self, op: "xir.Op", graph: "xir.Graph", batch: int | None = None) -> None:
        self._object, self._op, self._graph = op.tensor, op, graph
        self.dims = list(op.tensor.shape)
        if batch is not None and self.dims:
            self.dims[0] = batch

    @property
    def name(self) -> str:
        """Name of the tensor."""
        return self._object.name

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.dims)

    @property
    def dtype(self) -> str:
        """Data type with its width."""
        return f"{self._object.data_type.lower()}{self._object.bit_width}"

    @property
    def producer(self) -> "Op":
        """The Op that makes it."""
        return Op(self._op, self._graph)

    def get_element_num(self) -> int:
        """Number of elements."""
        count = 1
        for size in self.dims:
            count *= size
        return count

    def get_data_size(self) -> int:
        """Bytes."""
        return self.get_element_num() * -(-self._object.bit_width // 8)

    def __repr__(self) -> str:
        return f"<xir.Tensor named '{self.name}'>"


class Op(_Attributed):
    """An operation."""

    _object: "xir.Op"

    def __init__(self, op: "xir.Op", graph: "xir.Graph") -> None:
        self._object, self._graph = op, graph

    def get_name(self) -> str:
        """Name of the op."""
        return self._object.name

    def get_type(self) -> str:
        """Type of the op, "conv2d-fix"."""
        return self._object.type

    def get_input_num(self) -> int:
        """Number of inputs over all arguments."""
        return len(self._object.input_names)

    def get_input_ops(self) -> dict[str, list["Op"]]:
        """{argument: [Op]}."""
        named = self._object.inputs.items()
        return {key: [Op(self._graph.op(name), self._graph) for name in names] for key, names in named}

    def get_output_tensor(self) -> Tensor:
        """Its Tensor."""
        return Tensor(self._object, self._graph)

    def __repr__(self) -> str:
        return f"<xir.Op named '{self.get_name()}'>"


class Subgraph(_Attributed):
    """A node of the subgraph tree."""

    _object: "xir.Subgraph"

    def __init__(
        self, subgraph: "xir.Subgraph", graph: "xir.Graph", parent: "Subgraph | None" = None
    ) -> None:
        self._object, self._graph, self._parent = subgraph, graph, parent

    def get_name(self) -> str:
        """Name of the subgraph."""
        return self._object.name

    @property
    def is_root(self) -> bool:
        """Whether this is the root."""
        return self._parent is None

    @property
    def is_leaf(self) -> bool:
        """Whether it has no children."""
        return self._object.is_leaf

    def get_parent(self) -> "Subgraph | None":
        """The Subgraph above; None for the root."""
        return self._parent

    def get_children_num(self) -> int:
        """Number of children."""
        return len(self._object.children)

    def get_children(self) -> set["Subgraph"]:
        """Set of children, in no order; `toposort_child_subgraph` gives the order of execution."""
        return set(self.toposort_child_subgraph())

    def toposort_child_subgraph(self) -> list["Subgraph"]:
        """Children in order of execution."""
        return [Subgraph(child, self._graph, self) for child in self._object.children]

    def get_op_num(self) -> int:
        """Number of ops below."""
        return len(self._object.op_names)

    def get_ops(self) -> set[Op]:
        """Set of ops below."""
        return {Op(self._graph.op(name), self._graph) for name in self._object.op_names}

    def has_op(self, name: str) -> bool:
        """Whether the op called `name` is below."""
        return name in self._object.op_names

    def __repr__(self) -> str:
        return f"<xir.Subgraph named '{self.get_name()}'>"


class Graph(_Attributed):
    """A model."""

    _object: "xir.Graph"

    def __init__(self, graph: "xir.Graph") -> None:
        self._object = graph

    @staticmethod
    def deserialize(fname: str) -> "Graph":
        """Read an .xmodel; RuntimeError when it cannot be read."""
        from dpuflow import xir  # here, so that asking the board what it is stays quick

        try:
            return Graph(xir.Graph.load(fname))
        except UserError as error:
            raise RuntimeError(f"[XIR_READ_PB_FAILURE] {error}") from None

    def get_name(self) -> str:
        """Name of the graph."""
        return self._object.name

    def get_root_subgraph(self) -> Subgraph:
        """Root of the subgraph tree."""
        return Subgraph(self._object.root, self._object)

    def get_op(self, name: str) -> Op | None:
        """The Op called `name`; None when there is none."""
        return Op(self._object.op(name), self._object) if name in self._object else None

    def get_ops(self) -> set[Op]:
        """Set of all ops."""
        return {Op(op, self._object) for op in self._object.ops}

    def get_op_num(self) -> int:
        """Number of ops."""
        return len(self._object.ops)

    def toposort(self) -> list[Op]:
        """All ops in order of execution."""
        return [Op(op, self._object) for op in self._object.ops]

    def __repr__(self) -> str:
        return f"<xir.Graph named '{self.get_name()}'>"
