"""Accuracy of a GraphDef on a split, every image counted."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dpuflow.accuracy.evaluation import accuracy_record
from dpuflow.base.pixels import Scaling, scale_pixels
from dpuflow.base.progress import counted
from dpuflow.tfgraph.freeze import FrozenGraph


class Splits(Protocol):
    """What is asked of a data set: `datasets.dataset_file.Dataset` has it."""

    @property
    def class_names(self) -> list[str]:
        """Names indexed by label."""

    def batches(self, name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches of (images uint8 (n, H, W, C), labels (n,)) of a split."""


def evaluate_graph(
    stage: str,
    graph_path: Path | str,
    nodes: Mapping[str, Any],
    dataset: Splits,
    input_scaling: Scaling,
    split: str = "test",
    threads: int | None = None,
    check: Callable[[np.ndarray, np.ndarray], None] | None = None,
) -> dict[str, Any]:
    """Run a frozen or fake-quantized graph in TensorFlow and return its accuracy record.

    nodes : content of nodes.json; dataset : `datasets.dataset_file.Dataset`.
    check(x, outputs) : sees the first batch of float images and the graph's outputs; may refuse.
    """
    graph = FrozenGraph(graph_path, nodes["input"]["name"], nodes["output"]["name"], threads)
    labels: list[np.ndarray] = []
    predictions: list[np.ndarray] = []
    for images, some in counted(dataset.batches(split), "images", None, lambda batch: len(batch[0])):
        x = scale_pixels(images, input_scaling)
        outputs = graph.run(x)
        if check is not None and not labels:
            check(x, outputs)
        labels.append(some)
        predictions.append(outputs.argmax(axis=1))
    return accuracy_record(
        stage, split, np.concatenate(labels), np.concatenate(predictions), dataset.class_names
    )
