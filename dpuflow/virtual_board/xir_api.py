"""The part of the Python package `xir` that applications use to look into a model.

Names and behaviour follow the binding's published source (Vitis AI 3.5); where the
binding aborts the process, a RuntimeError is raised here.
"""

from dpuflow.base.errors import UserError


class _Attributed:
    """has_attr, get_attr, get_attrs over a dpuflow.xir object's `attrs`."""

    def has_attr(self, name):
        """Whether the attribute exists."""
        return name in self._object.attrs

    def get_attr(self, name):
        """Value of an attribute; RuntimeError when there is none."""
        if name not in self._object.attrs:
            raise RuntimeError(f"[XIR_UNREGISTERED_ATTR] {self!r} has no attribute {name!r}")
        return self._object.attrs[name]

    def get_attrs(self):
        """All attributes as a dict."""
        return {name: self._object.attrs[name] for name in self._object.attrs}


class Tensor(_Attributed):
    """A tensor: name, dims (list, batch first), dtype ("xint8", "float32"), attributes."""

    def __init__(self, op, graph, batch=None):
        self._object, self._op, self._graph = op.tensor, op, graph
        self.dims = list(op.tensor.shape)
        if batch is not None and self.dims:
            self.dims[0] = batch

    @property
    def name(self):
        """Name of the tensor."""
        return self._object.name

    @property
    def ndim(self):
        """Number of dimensions."""
        return len(self.dims)

    @property
    def dtype(self):
        """Data type with its width."""
        return f"{self._object.data_type.lower()}{self._object.bit_width}"

    @property
    def producer(self):
        """The Op that makes it."""
        return Op(self._op, self._graph)

    def get_element_num(self):
        """Number of elements."""
        count = 1
        for size in self.dims:
            count *= size
        return count

    def get_data_size(self):
        """Bytes."""
        return self.get_element_num() * -(-self._object.bit_width // 8)

    def __repr__(self):
        return f"<xir.Tensor named '{self.name}'>"


class Op(_Attributed):
    """An operation."""

    def __init__(self, op, graph):
        self._object, self._graph = op, graph

    def get_name(self):
        """Name of the op."""
        return self._object.name

    def get_type(self):
        """Type of the op, "conv2d-fix"."""
        return self._object.type

    def get_input_num(self):
        """Number of inputs over all arguments."""
        return len(self._object.input_names)

    def get_input_ops(self):
        """{argument: [Op]}."""
        named = self._object.inputs.items()
        return {key: [Op(self._graph.op(name), self._graph) for name in names] for key, names in named}

    def get_output_tensor(self):
        """Its Tensor."""
        return Tensor(self._object, self._graph)

    def __repr__(self):
        return f"<xir.Op named '{self.get_name()}'>"


class Subgraph(_Attributed):
    """A node of the subgraph tree."""

    def __init__(self, subgraph, graph, parent=None):
        self._object, self._graph, self._parent = subgraph, graph, parent

    def get_name(self):
        """Name of the subgraph."""
        return self._object.name

    @property
    def is_root(self):
        """Whether this is the root."""
        return self._parent is None

    @property
    def is_leaf(self):
        """Whether it has no children."""
        return self._object.is_leaf

    def get_parent(self):
        """The Subgraph above; None for the root."""
        return self._parent

    def get_children_num(self):
        """Number of children."""
        return len(self._object.children)

    def get_children(self):
        """Set of children, in no order; `toposort_child_subgraph` gives the order of execution."""
        return set(self.toposort_child_subgraph())

    def toposort_child_subgraph(self):
        """Children in order of execution."""
        return [Subgraph(child, self._graph, self) for child in self._object.children]

    def get_op_num(self):
        """Number of ops below."""
        return len(self._object.op_names)

    def get_ops(self):
        """Set of ops below."""
        return {Op(self._graph.op(name), self._graph) for name in self._object.op_names}

    def has_op(self, name):
        """Whether the op called `name` is below."""
        return name in self._object.op_names

    def __repr__(self):
        return f"<xir.Subgraph named '{self.get_name()}'>"


class Graph(_Attributed):
    """A model."""

    def __init__(self, graph):
        self._object = graph

    @staticmethod
    def deserialize(fname):
        """Read an .xmodel; RuntimeError when it cannot be read."""
        from dpuflow import xir  # here, so that asking the board what it is stays quick

        try:
            return Graph(xir.Graph.load(fname))
        except UserError as error:
            raise RuntimeError(f"[XIR_READ_PB_FAILURE] {error}") from None

    def get_name(self):
        """Name of the graph."""
        return self._object.name

    def get_root_subgraph(self):
        """Root of the subgraph tree."""
        return Subgraph(self._object.root, self._object)

    def get_op(self, name):
        """The Op called `name`; None when there is none."""
        return Op(self._object.op(name), self._object) if name in self._object else None

    def get_ops(self):
        """Set of all ops."""
        return {Op(op, self._object) for op in self._object.ops}

    def get_op_num(self):
        """Number of ops."""
        return len(self._object.ops)

    def toposort(self):
        """All ops in order of execution."""
        return [Op(op, self._object) for op in self._object.ops]

    def __repr__(self):
        return f"<xir.Graph named '{self.get_name()}'>"
