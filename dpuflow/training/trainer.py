"""Seeded, deterministic training with best-epoch selection."""

import csv
import io
import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Self

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.pixels import Scaling, check_scaling
from dpuflow.base.progress import Progress
from dpuflow.base.tensorflow_env import keras, tensorflow
from dpuflow.keras_models.prediction import predictor
from dpuflow.training.augmentation import augmenter_of_both
from dpuflow.training.image_source import Images, Stretches, as_images
from dpuflow.training.objectives import Classification, Objective

log = logging.getLogger("dpuflow")

Data = Images | tuple[np.ndarray, np.ndarray]
"""Images with their targets: a source, or (images uint8 (N, H, W, C), labels (N,) or other targets)."""
CHUNK = 50
"""Most training steps inside one TensorFlow call: long enough that Python's share vanishes,
short enough that progress shows."""


def train(
    model: Any,
    train_data: Data,
    validation_data: Data,
    settings: Mapping[str, Any],
    input_scaling: Scaling,
    seed: int,
    objective: Objective | None = None,
) -> list[dict[str, Any]]:
    """Train in place and leave the best epoch's weights in the model.

    Parameters
    ----------
    model : uncompiled Keras model, input (H, W, C), outputs as of the objective (a softmax of one).
    train_data, validation_data : (images uint8 (N, H, W, C), labels (N,)), or a source of them
        (`image_source.Images`), of which a few batches are in memory at a time.
    settings : optimizer, learning_rate, decay, schedule, batch_size, epochs,
        augmentation, restore_best, weight_decay, label_smoothing (config, `training`).
    input_scaling : see `base.pixels`.
    seed : of shuffling and augmentation (initial weights: `seed_everything` earlier).
    objective : what it is trained to (`objectives`); None for classification.

    Returns
    -------
    list of dict : one row per epoch: epoch, learning_rate, what the objective has of the epoch (loss,
        accuracy) and of the validation (validation_loss, validation_accuracy), kept (the best epoch).
    """
    train_data, validation_data = as_images(train_data), as_images(validation_data)
    if not len(train_data.labels):
        raise UserError(
            "the data set has no images to train on (only a test and a calibration part); add them, or bring "
            "a trained network: keras_h5 or frozen_pb in its entry of models"
        )
    wanted: Objective = objective or Classification()
    wanted.prepare(model, _optimizer(settings))
    with Loop(model, train_data, settings, input_scaling, seed, wanted) as loop:
        history = _epochs(model, loop, validation_data, settings, input_scaling)
    return history


def _epochs(model, loop, validation_data, settings, input_scaling):
    """Train all epochs, put the best one's weights back; the history."""
    predict = predictor(model)
    history, best = [], None
    for epoch in range(settings["epochs"]):
        row = {"epoch": epoch + 1, **loop.run_epoch(epoch)}
        row |= loop.objective.measure(model, predict, validation_data, input_scaling)
        history.append(row)
        if not math.isfinite(row["loss"]):
            raise UserError(
                f"training diverged in epoch {epoch + 1} (loss {row['loss']}); lower training.learning_rate"
            )
        score = loop.objective.score(row)
        if settings.get("restore_best", True) and (best is None or score > best[0]):
            best = (score, epoch, model.get_weights())
    kept = len(history) - 1
    if best is not None:
        kept = best[1]
        model.set_weights(best[2])
    for index, row in enumerate(history):
        row["kept"] = int(index == kept)
    return history


def seed_everything(seed: int, threads: int | None = None) -> None:
    """Seed Python, NumPy and TensorFlow; `tensorflow_env` asks for deterministic kernels."""
    keras(threads).utils.set_random_seed(seed)


def compile_model(model: Any, settings: Mapping[str, Any], objective: Objective | None = None) -> None:
    """Attach what the objective (None: of classification) has of optimizer, loss and metric, for the H5.

    `keras.optimizers.legacy.Adam` is written as `Adam`, which TensorFlow 2.3 loads;
    the default Adam would not (docs/reference/tutorial.md, "Compatibility").
    """
    (objective or Classification()).prepare(model, _optimizer(settings))


def _optimizer(settings):
    optimizers = keras().optimizers.legacy
    rate, decay = settings["learning_rate"], settings.get("decay", 0.0)
    if settings["optimizer"] == "adam":
        return optimizers.Adam(rate, decay=decay)
    return optimizers.SGD(rate, momentum=0.9, nesterov=True, decay=decay)


def measured(model: Any, data: Data, input_scaling: Scaling, objective: Objective) -> dict[str, float]:
    """What the objective says of a model's answers to the validation images: "loss", and its own figure."""
    found = objective.measure(model, predictor(model), as_images(data), input_scaling)
    return {name.removeprefix("validation_"): value for name, value in found.items()}


class Loop:
    """Training steps as one TensorFlow function over stretches of images; a context that holds the source."""

    def __init__(
        self,
        model: Any,
        train_data: Data,
        settings: Mapping[str, Any],
        input_scaling: Scaling,
        seed: int,
        objective: Objective | None = None,
    ) -> None:
        self.tf = tf = tensorflow()
        self.objective: Objective = objective or Classification()
        self.model, self.settings = model, settings
        data = as_images(train_data)
        self.batch = min(settings["batch_size"], len(data.labels))
        self.stretches = Stretches(data, self.batch, CHUNK, seed)
        self.steps = self.stretches.steps
        check_scaling(input_scaling, data.shape[-1])
        self.augment = augmenter_of_both(
            settings.get("augmentation") or {}, seed, data.shape, self.objective.move
        )
        self.scaling = (
            np.float32(input_scaling["subtract"]),
            np.float32(input_scaling["divide"]),
            input_scaling.get("order") == "bgr",
        )
        signature = [
            tf.TensorSpec([None, *data.shape], tf.uint8),
            tf.TensorSpec(*self.objective.target),
            *(tf.TensorSpec([], tf.int32), tf.TensorSpec([None])),
        ]
        self.run_chunk = tf.function(self._chunk, input_signature=signature)
        self._closing = ExitStack()
        self._read = self._closing.enter_context(self.stretches.opened())
        # one call outside the graph creates the optimizer's variables
        model.optimizer._create_all_weights(model.trainable_variables)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._closing.close()

    def _chunk(self, images, labels, first_step, rates):
        tf = self.tf
        subtract, divide, turned = self.scaling
        for index in tf.range(tf.shape(rates)[0]):
            begin, end = index * self.batch, (index + 1) * self.batch
            x, targets = tf.cast(images[begin:end], tf.float32), labels[begin:end]
            if self.augment:
                x, targets = self.augment(first_step + index, x, targets)
            x = (x - subtract) / divide
            if turned:
                x = x[..., ::-1]
            if self.settings.get("schedule", "constant") != "constant":
                self.model.optimizer.learning_rate.assign(rates[index])
            self.objective.step(self.model, x, targets)

    def rate(self, step: int) -> float:
        """Learning rate of a step: constant, or a cosine to zero after a linear warm-up."""
        base = self.settings["learning_rate"]
        if self.settings.get("schedule", "constant") == "constant":
            return base
        total = self.steps * self.settings["epochs"]
        warm = min(self.steps, total // 10 + 1)
        if step < warm:
            return base * (step + 1) / warm
        return base * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))

    def run_epoch(self, epoch: int, steps: int | None = None) -> dict[str, float]:
        """One pass over the training images in an order drawn from (seed, epoch), or its first `steps`."""
        steps = min(steps or self.steps, self.steps)
        self.objective.reset(self.model)
        start = time.perf_counter()
        first, end = epoch * self.steps, 0
        with Progress(f"steps of epoch {epoch + 1}", steps) as progress:
            for images, labels in self.stretches.epoch(self._read, epoch, steps):
                begin, end = end, min(end + self.stretches.at_once, steps)
                rates = np.array([self.rate(first + s) for s in range(begin, end)], np.float32)
                self.run_chunk(*map(self.tf.constant, (images, labels, first + begin, rates)))
                progress.update(end - begin)
        results = self.objective.results(self.model)
        words = "  ".join(f"{name} {value:.4f}" for name, value in results.items())
        took = time.perf_counter() - start
        log.info("epoch %d/%d  %s  (%.1f s)", epoch + 1, self.settings["epochs"], words, took)
        return {"learning_rate": float(self.rate(first + self.steps - 1)), **results}


def history_csv(history: Sequence[Mapping[str, Any]]) -> str:
    """The training history as CSV text; floats in full precision."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return stream.getvalue()
