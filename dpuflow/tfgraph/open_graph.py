"""Somebody's frozen graph -> the same graph for any number of the data set's images, in inference.

What runs a frozen graph (TensorFlow, the vendor's quantizer, `graph_reader`) feeds batches of any size in
the data set's shape. Graphs of other people fix the batch, take flat vectors or grey maps without channel,
leave sizes open, take uint8, wait for a training switch or dropout's rate, or end in one sigmoid:

- the placeholder becomes float32 [?, H, W, C]; a Reshape behind it gives what the graph read before;
- a Reshape to a fixed number of images is one to any number;
- switches and dropout's placeholders become the constants that inference has (`condition_nodes`);
- a single sigmoid z becomes softmax over (-z/2, z/2), which is (1 - sigmoid(z), sigmoid(z)): the
  probabilities of two classes, the second of which wins where the sigmoid exceeds 1/2.

Nothing else is touched; a graph that needs none of it stays as it is, byte for byte.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dpuflow.base.errors import about
from dpuflow.base.protobuf_pieces import Later
from dpuflow.network import Network
from dpuflow.tfgraph.graph_def import (
    DT_FLOAT,
    Message,
    add_constant,
    add_node,
    set_constant,
    write_graph_def,
)
from dpuflow.tfgraph.graph_ends import Names
from dpuflow.tfgraph.graph_reader import GraphTranslator
from dpuflow.tfgraph.large_graph import read_outline
from dpuflow.tfgraph.node_translation import BINARY_LOGITS


@dataclass(frozen=True)
class Opened:
    """A GraphDef message, and what stands for its marks (`large_graph.read_outline`)."""

    graph: Message
    contents: Mapping[bytes, Later]

    def write(self, path: Path | str) -> None:
        """Write it as `write_graph_def` does."""
        write_graph_def(path, self.graph, self.contents)


def open_graph(
    path: Path | str,
    input_name: str | None = None,
    output_name: Names = None,
    image_shape: Sequence[int] | None = None,
) -> tuple[Opened, Network, dict[str, Any], list[str]]:
    """Read a frozen graph for images of one shape.

    Parameters
    ----------
    path : binary GraphDef; input_name, output_name : node names, None: discovered.
    image_shape : (H, W, C) of the data set.

    Returns
    -------
    (graph, network, nodes, changes): the graph as above, `network.Network`,
    `GraphTranslator.ends`, and what was changed, in words ([] when nothing was).

    Raises
    ------
    UserError : as `graph_reader.read_network`, and for a placeholder of another shape than the images.
    """
    translator = GraphTranslator(*read_outline(path), str(path), image_shape)
    with about(path):
        network = translator.network(Path(path).stem, input_name, output_name)
    graph, contents = read_outline(path)  # afresh: asking a message for an attribute adds it
    changes = _Changes(graph, translator, network.input.shape)
    changes.make()
    return Opened(graph, contents), network, translator.ends, changes.notes


class _Changes:
    """The changes that one graph needs, made in place."""

    def __init__(self, graph, translator, image_shape):
        self.graph, self.translator, self.image_shape = graph, translator, tuple(image_shape)
        self.nodes = {node.name: node for node in graph.node}
        self.notes = []

    def make(self) -> None:
        """Make them; `notes` says which."""
        self._switches()
        self._reshapes()
        self._input()
        self._sigmoid()

    def _switches(self):
        for name, value in self.translator.switches.items():
            node = self.nodes[name]
            del node.input[:]
            set_constant(node, value)
            self.notes.append(f"{name}: constantly {value.tolist()}, as in inference")

    def _reshapes(self):
        for name, shape in self.translator.fixed_batch.items():
            node = self.nodes[name]
            node.input[1] = add_constant(self.graph, f"{name}/any_batch", np.array(shape, np.int32))
            if node.attr["Tshape"].type:
                node.attr["Tshape"].type = 3
            self.notes.append(f"{name}: reshape to any number of images")

    def _input(self):
        (name,) = self.translator.input_nodes
        node = self.nodes[name]
        dims = [dim.size for dim in node.attr["shape"].shape.dim] if "shape" in node.attr else []
        dtype = node.attr["dtype"].type if "dtype" in node.attr else DT_FLOAT
        wanted = [-1, *self.image_shape]
        if dims == wanted and dtype == DT_FLOAT and node.op == "Placeholder":
            return
        if len(dims) == 2 and len(wanted) == 2:
            return
        readers = [r for r in self.graph.node if name in (i.split(":")[0] for i in r.input)]
        self.notes.append(f"{name}: {dims} becomes {wanted}")
        if dtype != DT_FLOAT:
            for reader in readers:
                if reader.op != "Cast":
                    self.translator.fail(
                        reader, "reads the images as whole numbers; cast them to float first"
                    )
                reader.attr["SrcT"].type = DT_FLOAT
        del node.input[:]
        node.op = "Placeholder"
        node.attr.clear()
        node.attr["dtype"].type = DT_FLOAT
        for size in wanted:
            node.attr["shape"].shape.dim.add(size=size)
        if not dims or len(dims) == 4:
            return
        shape = add_constant(self.graph, f"{name}/any_batch", np.array([-1, *dims[1:]], np.int32))
        seen = add_node(self.graph, "Reshape", f"{name}/reshaped", [name, shape], T=("type", DT_FLOAT))
        for reader in readers:
            for k, source in enumerate(reader.input):
                if source.split(":")[0] == name:
                    reader.input[k] = seen

    def _sigmoid(self):
        for name in self.translator.binary_outputs:
            node = self.nodes[name]
            pair = add_constant(
                self.graph, f"{name}/logits/pair", np.array(BINARY_LOGITS, np.float32)[None, :]
            )
            logits = f"{name}/logits/MatMul"
            add_node(self.graph, "MatMul", logits, [node.input[0], pair], T=("type", DT_FLOAT))
            node.op = "Softmax"
            node.input[0] = logits
            self.notes.append(f"{name}: one sigmoid becomes the probabilities of two classes")
