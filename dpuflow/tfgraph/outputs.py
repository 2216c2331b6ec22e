"""The outputs of a frozen or quantized GraphDef, by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dpuflow.base.outputs import Shapes, named_ends
from dpuflow.base.pixels import Scaling, scale_pixels
from dpuflow.tfgraph.freeze import FrozenGraph


class GraphStage:
    """`base.outputs.Stage` of a GraphDef in TensorFlow.

    Parameters
    ----------
    path : frozen_graph.pb or quantize_eval_model.pb, sealed. nodes : content of nodes.json.
    input_scaling : see `base.pixels`. threads : cores to use.
    """

    def __init__(
        self,
        path: Path | str,
        nodes: Mapping[str, Any],
        input_scaling: Scaling,
        threads: int | None = None,
    ) -> None:
        self.input_scaling = input_scaling
        self._ends = {name: (end["name"], tuple(end["shape"][1:])) for name, end in named_ends(nodes).items()}
        names = list(dict.fromkeys(node for node, _ in self._ends.values()))
        self.graph = FrozenGraph(path, nodes["input"]["name"], names, threads, own=True)

    @property
    def shapes(self) -> Shapes:
        """Of the outputs."""
        return {name: shape for name, (_, shape) in self._ends.items()}

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """{output's name: float32 (N, *shape)} of uint8 pictures."""
        return self.of_scaled(scale_pixels(images, self.input_scaling))

    def of_scaled(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """The same of the network's float32 input (N, H, W, C)."""
        found = self.graph.run_all(x)
        return {
            name: found[node].reshape(len(x), *shape).astype(np.float32, copy=False)
            for name, (node, shape) in self._ends.items()
        }
