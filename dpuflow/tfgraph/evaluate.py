"""Accuracy of a GraphDef on a split, every image counted."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dpuflow.accuracy.evaluation import accuracy_record
from dpuflow.base.numerics import scale_pixels
from dpuflow.tfgraph.freeze import FrozenGraph


class Splits(Protocol):
    """What is asked of a data set: `datasets.dataset_file.Dataset` has it."""

    @property
    def class_names(self) -> list[str]:
        """Names indexed by label."""

    def subset(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(images uint8 (n, H, W, C), labels uint8 (n,)) of a split."""


def evaluate_graph(
    stage: str,
    graph_path: Path | str,
    nodes: Mapping[str, Any],
    dataset: Splits,
    input_scaling: Mapping[str, float],
    split: str = "test",
    threads: int | None = None,
    check: Callable[[np.ndarray, np.ndarray], None] | None = None,
) -> dict[str, Any]:
    """Run a frozen or fake-quantized graph in TensorFlow and return its accuracy record.

    nodes : content of nodes.json; dataset : `datasets.dataset_file.Dataset`.
    check(x, outputs) : sees the float images and the graph's outputs; may refuse.
    """
    images, labels = dataset.subset(split)
    graph = FrozenGraph(graph_path, nodes["input"]["name"], nodes["output"]["name"], threads)
    x = scale_pixels(images, input_scaling)
    outputs = graph.run(x)
    if check is not None:
        check(x, outputs)
    return accuracy_record(stage, split, labels, outputs.argmax(axis=1), dataset.class_names)
