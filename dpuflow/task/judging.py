"""How good a network's outputs are for some pictures of a split: what the diagnosis of its layers asks."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dpuflow.base.totality import Total
from dpuflow.datasets.dataset_file import Dataset
from dpuflow.network import Network
from dpuflow.network.ends import named_layers
from dpuflow.task import detection, masks, segmentation
from dpuflow.task.average_precision import Found, precision
from dpuflow.task.boxes import Answer
from dpuflow.task.tasks import TASKS, check_outputs

Figure = Callable[[Mapping[str, np.ndarray]], float]
"""{output's name: values (N, ...)} -> figure of merit, 0 to 1."""


class Judge:
    """Figures of a network's outputs (`quantize.diagnosis.OutputJudge`).

    network : whose outputs are judged. decode : the key of its model.
    """

    def __init__(
        self, dataset: Dataset, split: str, network: Network, decode: Mapping[str, Any] | None
    ) -> None:
        self.dataset, self.split, self.decode = dataset, split, decode
        self.layers = named_layers(network)
        self.name, self._make = FIGURES[dataset.task]

    def of(self, pictures: np.ndarray) -> Figure | None:
        """Figure of {layer's name: values} for these pictures; None where outputs are none of them."""
        shapes = {name: layer.shape for name, layer in self.layers.items()}
        if any(not layer.operator.quantized for layer in self.layers.values()):
            return None
        figure = self._make(self.dataset, self.split, pictures, shapes, self.decode)

        def judged(values: Mapping[str, np.ndarray]) -> float:
            return figure({name: values[layer.name] for name, layer in self.layers.items()})

        return judged


def judge_of(
    dataset: Dataset, split: str, network: Network, decode: Mapping[str, Any] | None
) -> Judge | None:
    """A Judge for a data set's task; None for classification, and for a split without pictures.

    UserError where the network's outputs are none of the task, whether they are judged or not: then nothing
    has been quantized yet.
    """
    if dataset.task not in TASKS:
        return None
    shapes = {name: layer.shape for name, layer in named_layers(network).items()}
    check_outputs(dataset, shapes, decode, f"models.{network.name.partition('-s')[0]}")
    if not len(dataset.splits[split]):
        return None
    return Judge(dataset, split, network, decode)


def _of_boxes(dataset, split, pictures, shapes, decode):
    decoder = detection.decoder(dataset, shapes, decode, "quantizer")
    every, places = detection.truth(dataset, split), dataset.placements_in(split)
    renumbered = np.full(len(places), -1)
    renumbered[pictures] = np.arange(len(pictures))
    kept = renumbered[every.pictures] >= 0
    truth = Found(
        every.boxes[kept], every.classes[kept], renumbered[every.pictures[kept]], every.scores[kept]
    )
    chosen = [places[number] for number in pictures]

    def figure(outputs: Mapping[str, np.ndarray]) -> float:
        answers = [Answer(*found) for found in decoder(dict(outputs))]
        found = detection.found(answers, chosen)
        return precision(truth, found, len(pictures), len(dataset.class_names), draws=0).half

    return figure


def _of_masks(dataset, split, pictures, shapes, decode):
    answer = segmentation.answer_map(dataset, shapes, decode, "quantizer")
    size, classes = dataset.shape[:2], len(dataset.class_names)
    true = dataset.masks_in(split)[np.asarray(pictures)]

    def figure(outputs: Mapping[str, np.ndarray]) -> float:
        answers = answer.of(outputs, size, "quantizer")
        total = np.zeros((classes, classes), np.int64)
        for a, b in zip(true, answers, strict=True):
            total += masks.confusion(a, b, classes)
        return float(masks.mean_overlap(masks.pixels_of(total)))

    return figure


FIGURES: Mapping[str, tuple[str, Any]] = Total(
    "task.judging: figure of a network's outputs",
    TASKS,
    {"detection": ("mAP@0.5", _of_boxes), "segmentation": ("mIoU", _of_masks)},
)
"""Task -> (name of its first figure, what makes a Figure of chosen pictures)."""
