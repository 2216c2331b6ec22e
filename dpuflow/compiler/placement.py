"""Where ops of a compiled graph stand: segments, each of one device, and the transfers between them."""

from collections.abc import Iterable
from typing import Any

from dpuflow.base.numerics import Grid
from dpuflow.compiler.naming import Names
from dpuflow.compiler.partition import Segment, Superlayer
from dpuflow.network import Network
from dpuflow.xir import Graph, Op


class Placement:
    """A graph that grows op by op; `read` uploads and downloads what another segment holds.

    network : whose layers become ops. Layers that rename alone (flattens) may have no op (`value`).
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.graph = Graph(self.network.name)
        self.names = Names(layer.name for layer in self.network.layers)
        self.segments: list[Segment] = []
        self.home: dict[str, Segment] = {}
        """Op name -> its segment."""
        self.value: dict[str, str] = {}
        """Layer name -> op that holds its tensor, four-dimensional."""
        self.downloads: dict[str, str] = {}
        """Op name -> the op that downloads its tensor."""

    def segment(self, device: str) -> Segment:
        """The current segment, a new one where the last is of another device."""
        if not self.segments or self.segments[-1].device != device:
            self.segments.append(Segment(device))
        return self.segments[-1]

    def read(self, layer_name: str) -> str:
        """Name of the op that gives a layer's tensor to the current segment."""
        source, here = self.value[self.unflattened(layer_name)], self.segments[-1]
        there = self.home[source]
        if there is here:
            return source
        if there.device == "DPU":
            source = self._download(source, there)
        if here.device != "DPU":
            return source
        if source not in here.uploads:
            here.uploads[source] = self._upload(source, here)
        return here.uploads[source]

    def unflattened(self, name: str) -> str:
        """Name of the layer that computes what a chain of flattens only renames."""
        while name not in self.value:
            name = self.network[name].inputs[0]
        return name

    def _upload(self, source, segment):
        number = sum(source in other.uploads for other in self.segments)
        producer = self.graph.op(source).tensor
        name = self.names.unique(f"{source}_upload_{number}")
        op = self.graph.add_op(
            name, "upload", {"input": source}, {"device": "DPU"}, f"{producer.name}_upload_{number}"
        )
        self.fixed(op, producer.fix_point)
        segment.leaves.append(Superlayer(name, [name], {"skip_code_gen": True}, transfer=True))
        self.home[name] = segment
        return name

    def _download(self, source, segment):
        """The tensor in DDR takes a name of its own, the downloaded one keeps it
        (docs/reference/xmodel.md)."""
        if source not in self.downloads:
            producer = self.graph.op(source).tensor
            tensor_name = producer.name
            producer.proto.tensor_name = f"{tensor_name}_download_0"
            name = self.names.unique(f"{source}_download_0")
            op = self.graph.add_op(name, "download", {"input": source}, {"device": "DPU"}, tensor_name)
            self.fixed(op, producer.fix_point)
            segment.leaves.append(Superlayer(name, [name], transfer=True))
            self.home[name] = segment
            self.downloads[source] = name
        return self.downloads[source]

    def fixed(self, op: Op, fix_point: int, round_mode: str = "DPU_ROUND") -> Op:
        """The op, its tensor on the grid of a fix_point."""
        op.tensor.attrs.update(Grid(fix_point).attributes(round_mode))
        return op

    def place(
        self,
        op: Op,
        constants: Iterable[str] = (),
        leaf: Superlayer | None = None,
        attrs: dict[str, Any] | None = None,
    ) -> Op:
        """Put an op (and its constants) into a superlayer of the current segment; returns the op.

        leaf : the superlayer, None: one of its own, with `attrs`.
        """
        constants, segment = tuple(constants), self.segments[-1]
        for name in (*constants, op.name):
            self.graph.op(name).attrs["device"] = segment.device
            self.home[name] = segment
        if leaf is None:
            leaf = Superlayer(op.name, [], attrs or {})
            segment.leaves.append(leaf)
        leaf.ops += [*constants, op.name]
        return op
