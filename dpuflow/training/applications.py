"""A network of tf_keras.applications with a head of one's own, its weights from a file, trained in stages."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dpuflow.base.errors import UserError
from dpuflow.base.hints import nearest
from dpuflow.base.pixels import Scaling
from dpuflow.base.tensorflow_env import keras
from dpuflow.training.model_builder import with_head
from dpuflow.training.trainer import Data, compile_model, train
from dpuflow.training.weights_file import load_weights

HEAD = ("global_average_pool",)
"""Layers between the application and the output layer, where the configuration names none."""
WHOLE = "head"
"""As `freeze_until`: everything before the head."""


class Transfer:
    """An application with a new head, and how it is trained.

    Attributes
    ----------
    model : uncompiled Keras model, one flat graph. base : names of the application's layers, in order.
    """

    def __init__(self, entry: Mapping[str, Any], shape: Sequence[int], classes: int, name: str) -> None:
        """Build it.

        Parameters
        ----------
        entry : the model's entry of the configuration: application, weights, alpha, head, freeze_until,
            fine_tuning.
        shape : (H, W, C) of the images; classes : number of outputs; name : the model's, for messages.

        Raises
        ------
        UserError : images that the application does not take, weights of another network, layers that do
            not exist.
        """
        self.entry, self.key = entry, f"models.{name}"
        kind = entry["application"]
        K = keras()
        source = K.Input(tuple(shape), name="input")
        options = {"alpha": entry["alpha"]} if "alpha" in entry else {}
        try:
            build = getattr(K.applications, kind)
            base = build(
                input_tensor=source, input_shape=tuple(shape), include_top=False, weights=None, **options
            )
        except ValueError as error:
            size = " x ".join(map(str, shape))
            raise UserError(f"{self.key}: {kind} does not take images of {size}: {error}") from None
        self.pretrained = entry["weights"] != "none"
        if self.pretrained:
            load_weights(entry["weights"], base, kind)
        self.base = [layer.name for layer in base.layers]
        where, model_name = f"{self.key}.head", re.sub(r"\W", "_", name)
        self.model = with_head(source, base.output, entry.get("head", HEAD), where, classes, model_name)
        for settings in (entry, entry.get("fine_tuning", {})):
            self._frozen(settings.get("freeze_until"))  # a name that does not exist stops before training

    def _frozen(self, until):
        """Names of the layers up to and including `until`."""
        if until is None:
            return []
        if until == WHOLE:
            return self.base
        if until not in self.base:
            kind = self.entry["application"]
            raise UserError(
                f"{self.key}.freeze_until: {kind} has no layer {until!r}; {_near(until, self.base)}"
            )
        return self.base[: self.base.index(until) + 1]

    def stages(self, training: Mapping[str, Any]) -> list[tuple[dict[str, Any], list[str]]]:
        """[(settings of a training, names of the layers that it leaves as they are)], one or two.

        While a pre-trained network is fine-tuned, its batch norms keep the means and deviations that they
        came with: those of a few small batches would undo what it has learned.
        """
        stages = [(dict(training), self._frozen(self.entry.get("freeze_until")))]
        more = self.entry.get("fine_tuning")
        if more:
            frozen = self._frozen(more.get("freeze_until"))
            if self.pretrained:
                norms = [name for name in self.base if _is_norm(self.model.get_layer(name))]
                frozen = [*frozen, *(name for name in norms if name not in frozen)]
            settings = {key: value for key, value in more.items() if key != "freeze_until"}
            stages.append(({**training, **settings}, frozen))
        return stages

    def train(
        self, training: Mapping[str, Any], parts: tuple[Data, Data], input_scaling: Scaling, seed: int
    ) -> list[dict[str, Any]]:
        """Train all stages in place, leave the best epoch's weights; the history, epochs counted on.

        parts : data for training and for validation. For the rest see `trainer.train`.
        """
        history: list[dict[str, Any]] = []
        best = None
        for settings, frozen in self.stages(training):
            for layer in self.model.layers:
                layer.trainable = layer.name not in frozen
            rows = train(self.model, *parts, settings, input_scaling, seed + len(history))
            kept = next(row for row in rows if row["kept"])
            score = kept["validation_accuracy"], -kept["validation_loss"]
            later = [{**row, "epoch": row["epoch"] + len(history)} for row in rows]
            if best is None or score > best[0] or not settings.get("restore_best", True):
                best = score, self.model.get_weights()
                history = [{**row, "kept": 0} for row in history] + later
            else:
                history += [{**row, "kept": 0} for row in later]
        assert best is not None
        self.model.set_weights(best[1])
        for layer in self.model.layers:
            layer.trainable = True
        compile_model(self.model, training)  # anew: the file's optimizer fits all of its variables
        return history


def _is_norm(layer):
    return type(layer).__name__ == "BatchNormalization"


def _near(name, layers):
    """End of a message: the layers that were probably meant; of so many not all are listed."""
    close = nearest(name, layers, 3)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"its layers are {', '.join([*layers[:3], '...', *layers[-3:]])}; {WHOLE} stands for all of them"
