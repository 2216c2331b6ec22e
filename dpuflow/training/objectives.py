"""What a network is trained to, one class for each task: `trainer.Loop` asks it and knows no task.

An objective says what the targets of a batch are and how they follow their augmented images, does one
training step, and measures the network on the validation images after each epoch.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from dpuflow.base.numerics import images_at_a_time
from dpuflow.base.pixels import Scaling, scale_pixels
from dpuflow.base.tensorflow_env import keras, tensorflow
from dpuflow.training.augmentation import Move, move_boxes, move_masks
from dpuflow.training.detection_loss import FIELDS, DetectionLoss
from dpuflow.training.image_source import Images, batches

NO_CLASS = 255
"""Of a pixel that has none and does not count."""
LEAST_LEFT = 0.2
"""Share of a box that must still be in the picture after augmentation,"""
LEAST_SIDE = 2.0
"""and the pixels that its sides must have, or it is left alone."""


LEAST_SHARE = 1e-7
"""Of a softmax that is trained further: of less there is no logarithm."""


Target = tuple[tuple[int | None, ...], str]
"""(shape of a batch's targets, dtype)."""


class Objective(Protocol):
    """See above."""

    target: Target

    @property
    def move(self) -> Move | None:
        """How targets follow their images; None where they stay."""

    def prepare(self, model: Any, optimizer: Any) -> None:
        """Compile the model."""

    def step(self, model: Any, x: Any, targets: Any) -> None:
        """One training step, inside a TensorFlow function."""

    def reset(self, model: Any) -> None:
        """Begin an epoch."""

    def results(self, model: Any) -> dict[str, float]:
        """Means over the epoch; "loss" is one of them."""

    def measure(self, model: Any, predict: Any, data: Images, scaling: Scaling) -> dict[str, float]:
        """Columns of the history for the validation images, "validation_loss" among them."""

    def score(self, row: Mapping[str, float]) -> tuple[float, ...]:
        """By which the best epoch is chosen, the greatest."""


class Classification:
    """One label for each image, by cross entropy; the figure is the accuracy."""

    target: Target = ((None,), "int32")
    move: Move | None = None

    def prepare(self, model: Any, optimizer: Any) -> None:
        """Optimizer, loss and metric; all of them are stored in the H5."""
        model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])

    def step(self, model: Any, x: Any, targets: Any) -> None:
        """Keras's own."""
        model.train_step((x, targets))

    def reset(self, model: Any) -> None:
        """Keras's metrics."""
        model.reset_metrics()

    def results(self, model: Any) -> dict[str, float]:
        """Loss and accuracy."""
        return {metric.name: float(metric.result()) for metric in model.metrics}

    def measure(self, model: Any, predict: Any, data: Images, scaling: Scaling) -> dict[str, float]:
        """Loss and accuracy."""
        loss, accuracy = loss_of_labels(predict, data, scaling)
        return {"validation_loss": loss, "validation_accuracy": accuracy}

    def score(self, row: Mapping[str, float]) -> tuple[float, ...]:
        """Accuracy first; equal accuracies are told apart by loss."""
        return row["validation_accuracy"], -row["validation_loss"]


def loss_of_labels(predict: Any, data: Images, scaling: Scaling) -> tuple[float, float]:
    """(cross-entropy, accuracy) of softmax outputs; never more floats than a batch has."""
    parts = [predict(scale_pixels(images, scaling)) for images in batches(data)]
    probabilities, labels = np.concatenate(parts), np.asarray(data.labels).astype(np.int32)
    picked = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
    loss = float(-np.log(np.maximum(picked, 1e-12)).mean())
    return loss, float((probabilities.argmax(1) == labels).mean())


class OfMaps:
    """What detection and segmentation have in common: a loss of our own, in parts, over all outputs."""

    parts: tuple[str, ...]
    move: Move | None = None

    def __init__(self) -> None:
        self.means = {name: keras().metrics.Mean(name=name) for name in ("loss", *self.parts)}

    def losses(self, outputs: Sequence[Any], targets: Any) -> dict[str, Any]:
        """{part: scalar}; their sum is the loss."""
        raise NotImplementedError

    def prepare(self, model: Any, optimizer: Any) -> None:
        """The optimizer alone; the loss is no part of the H5."""
        model.compile(optimizer=optimizer)

    def step(self, model: Any, x: Any, targets: Any) -> None:
        """Gradients of the sum of the parts."""
        tf = tensorflow()
        with tf.GradientTape() as tape:
            found = self.losses(as_list(model(x, training=True)), targets)
            loss = tf.add_n(list(found.values()))
        model.optimizer.minimize(loss, model.trainable_variables, tape=tape)
        for name, value in ({"loss": loss} | found).items():
            self.means[name].update_state(value, sample_weight=tf.shape(x)[0])

    def reset(self, model: Any) -> None:
        """Begin an epoch."""
        for mean in self.means.values():
            mean.reset_state()

    def results(self, model: Any) -> dict[str, float]:
        """The loss; and its parts, where there are several."""
        return {name: float(mean.result()) for name, mean in self.means.items()}

    def measured(self, model: Any, data: Images, scaling: Scaling) -> Iterator[tuple[list[Any], Any, float]]:
        """(outputs, targets, loss) of each batch of the validation images."""
        tf = tensorflow()
        if not hasattr(self, "_call"):
            self._call = tf.function(lambda x: as_list(model(x, training=False)), reduce_retracing=True)
        start = 0
        for images in batches(data, min(images_at_a_time(data.shape), 32)):
            targets = data.labels[np.arange(start, start + len(images))]
            outputs = self._call(tf.constant(scale_pixels(images, scaling)))
            loss = float(tf.add_n(list(self.losses(outputs, tf.constant(targets)).values())))
            yield [output.numpy() for output in outputs], targets, loss
            start += len(images)

    def score(self, row: Mapping[str, float]) -> tuple[float, ...]:
        """The loss."""
        return (-row["validation_loss"],)


def weighted(losses: Sequence[tuple[float, int]]) -> float:
    """The mean of (loss, images) of batches."""
    return float(np.average([loss for loss, _ in losses], weights=[count for _, count in losses]))


def as_list(outputs: Any) -> list[Any]:
    """Of a Keras model with one output or with several."""
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


class Detection(OfMaps):
    """Boxes at the model's heads.

    loss : of the model's heads. size : (height, width) of the pictures.
    """

    parts = ("box", "objectness", "class")
    target: Target = ((None, None, FIELDS), "float32")

    def __init__(self, loss: DetectionLoss) -> None:
        super().__init__()
        self.losses = loss  # type: ignore[method-assign]
        self.size = loss.size

    def move(self, targets: Any, transforms: Any) -> Any:
        """Boxes moved and cut at the picture's edges; of which little is left, those are left alone."""
        tf = tensorflow()
        moved = move_boxes(targets[..., :4], transforms)
        high = tf.constant([self.size[1], self.size[0]] * 2, tf.float32)
        cut = tf.clip_by_value(moved, 0.0, high)
        sides, whole = cut[..., 2:] - cut[..., :2], moved[..., 2:] - moved[..., :2]
        left = tf.reduce_prod(sides, -1) / tf.maximum(tf.reduce_prod(whole, -1), 1e-9)
        stays = (left >= LEAST_LEFT) & (tf.reduce_min(sides, -1) >= LEAST_SIDE)
        kept = tf.where(stays, targets[..., 5], tf.minimum(targets[..., 5], 0.0))
        return tf.concat([cut, targets[..., 4:5], kept[..., None]], -1)

    def measure(self, model: Any, predict: Any, data: Images, scaling: Scaling) -> dict[str, float]:
        """The loss."""
        losses = [(loss, len(targets)) for _, targets, loss in self.measured(model, data, scaling)]
        return {"validation_loss": weighted(losses)}


class Segmentation(OfMaps):
    """A class for each pixel, by cross entropy; the figure is the mean IoU of the classes that occur.

    probabilities : whether the model's output is a softmax already (of somebody's own file).
    """

    parts = ()
    target: Target = ((None, None, None), "uint8")

    def __init__(self, classes: int, probabilities: bool = False) -> None:
        super().__init__()
        self.classes, self.probabilities = classes, probabilities

    def losses(self, outputs: Sequence[Any], targets: Any) -> dict[str, Any]:
        """The mean over the pixels that have a class."""
        tf = tensorflow()
        counts = tf.cast(targets != NO_CLASS, tf.float32)
        labels = tf.where(targets == NO_CLASS, tf.zeros_like(targets), targets)
        # the softmax of the logarithms of shares is those shares
        logits = tf.math.log(tf.maximum(outputs[0], LEAST_SHARE)) if self.probabilities else outputs[0]
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(labels, tf.int32), logits)
        return {"loss": tf.reduce_sum(each * counts) / tf.maximum(tf.reduce_sum(counts), 1.0)}

    def move(self, targets: Any, transforms: Any) -> Any:
        """Masks moved pixel by pixel."""
        return move_masks(targets, transforms, NO_CLASS)

    def measure(self, model: Any, predict: Any, data: Images, scaling: Scaling) -> dict[str, float]:
        """Loss and mean IoU."""
        losses, table = [], np.zeros((self.classes, self.classes), np.int64)
        for outputs, targets, loss in self.measured(model, data, scaling):
            losses.append((loss, len(targets)))
            counted = targets != NO_CLASS
            pairs = targets[counted].astype(np.int64) * self.classes + outputs[0].argmax(-1)[counted]
            table += np.bincount(pairs, minlength=self.classes**2).reshape(table.shape)
        right, union = np.diag(table), table.sum(0) + table.sum(1) - np.diag(table)
        mean = float((right[union > 0] / union[union > 0]).mean()) if union.any() else 0.0
        return {
            "validation_loss": weighted(losses),
            "validation_mean_iou": mean,
        }

    def score(self, row: Mapping[str, float]) -> tuple[float, ...]:
        """Mean IoU first."""
        return row["validation_mean_iou"], -row["validation_loss"]
