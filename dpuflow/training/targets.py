"""What a data set of any task is trained with: its objective, and its boxes and masks as arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.tensorflow_env import keras
from dpuflow.datasets.dataset_file import Dataset, SplitMasks
from dpuflow.datasets.targets import Boxes
from dpuflow.decoding.anchors import settled
from dpuflow.keras_models.outputs import named_outputs
from dpuflow.training.detection_loss import FIELDS, DetectionLoss
from dpuflow.training.image_source import IN_MEMORY, Images, Targeted
from dpuflow.training.objectives import Classification, Detection, Objective, Segmentation


class BoxTargets:
    """Boxes as float32 (n, M, FIELDS), filled up to the most boxes that a picture has."""

    def __init__(self, boxes: Boxes) -> None:
        self.boxes = boxes
        self.most = max([1, *np.diff(boxes.offsets).tolist()])

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        found = self.boxes.of(places)
        table = np.zeros((len(places), self.most, FIELDS), np.float32)
        table[..., 5] = -1
        picture = np.repeat(np.arange(len(places)), np.diff(found.offsets))
        number = np.arange(len(picture)) - found.offsets[:-1][picture]
        table[picture, number, :4] = found.boxes
        table[picture, number, 4] = found.classes
        table[picture, number, 5] = ~found.ignored
        return table


class MaskTargets:
    """Masks uint8 (n, H, W): in memory where `image_source.IN_MEMORY` holds them, else read on demand."""

    def __init__(self, masks: SplitMasks) -> None:
        small = int(np.prod(masks.shape)) <= IN_MEMORY
        self.masks: SplitMasks | np.ndarray = masks[np.arange(len(masks))] if small else masks

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        return self.masks[places]


def training_for(
    dataset: Dataset, model: Any, decode: Mapping[str, Any], where: str
) -> tuple[Objective, Images, Images]:
    """(what a model is trained to, images to train on, images for validation) of the data set's task.

    decode : the model's settings, for detection. where : the model's key, for messages.
    """
    parts = [dataset.part(name) for name in ("train", "validation")]
    if dataset.task == "classification":
        return Classification(), parts[0], parts[1]
    if dataset.task == "segmentation":
        masks = [MaskTargets(dataset.masks_in(part.name)) for part in parts]
        train, validation = map(Targeted, parts, masks)
        probabilities = _check_map(dataset, model, where)
        return Segmentation(len(dataset.class_names), probabilities), train, validation
    boxes = [dataset.boxes_in(part.name) for part in parts]
    shapes = {name: tuple(output.shape[1:]) for name, output in named_outputs(model, model.outputs).items()}
    size = dataset.shape[:2]
    told = settled(decode, len(dataset.class_names), shapes, size, boxes[0].boxes, f"{where}.decode")
    train, validation = map(Targeted, parts, map(BoxTargets, boxes))
    return Detection(DetectionLoss(told, shapes, size)), train, validation


def _check_map(dataset, model, where):
    """Whether the only output of a model, a map of the picture's size, is a softmax; UserError for others."""
    shapes = {name: tuple(output.shape[1:]) for name, output in named_outputs(model, model.outputs).items()}
    wanted = (*dataset.shape[:2], len(dataset.class_names))
    if list(shapes.values()) != [wanted]:
        shown = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise UserError(
            f"{where}: training for masks needs one output {list(wanted)}, a score for each class and pixel; "
            f"the model has {shown}"
        )
    last, softmax = model.outputs[0].node.layer, keras().activations.softmax
    return type(last).__name__ == "Softmax" or getattr(last, "activation", None) is softmax
