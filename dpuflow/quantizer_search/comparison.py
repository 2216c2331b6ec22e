"""Many settings of the quantizer on one network: loaded once, common steps done once, exact answers.

Each setting gives the network that `reference.quantize` would give, and answers the validation
images in the emulator, which computes what the board computes. Test images are not looked at.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dpuflow.accuracy.evaluation import mcnemar_exact, wilson_interval
from dpuflow.base.errors import UserError
from dpuflow.base.numerics import sqnr_db
from dpuflow.base.pixels import Scaling
from dpuflow.compiler.reference import lower
from dpuflow.device.targets import load_targets
from dpuflow.emulator import Emulator
from dpuflow.network import Network, QuantizedNetwork
from dpuflow.quantize import blocks, position_search
from dpuflow.quantize.answers import EXECUTED_FOR, float_values
from dpuflow.quantize.distance import LogitDistance, agreement, is_logits
from dpuflow.quantize.memo import Memo
from dpuflow.quantize.quantization import Outcome, Quantization
from dpuflow.quantize.reference import checked_images
from dpuflow.quantize.settings import complete

BATCH = 64

Row = dict[str, Any]
"""A setting and what was measured of it."""


class Comparison:
    """One float network and its images, ready to measure settings.

    Parameters
    ----------
    network : as `network.network_file.load_network` reads it.
    calibration : uint8 (N, H, W, C), as many as there are: a setting may take fewer.
    validation : (uint8 images, labels) that the settings are judged by.
    input_scaling : see `base.pixels`.
    """

    def __init__(
        self,
        network: Network,
        calibration: blocks.Pixels,
        validation: tuple[blocks.Pixels, ArrayLike],
        input_scaling: Scaling,
        threads: int = 1,
    ) -> None:
        self.network = network
        self.calibration = blocks.kept(checked_images(calibration, network))
        self.images: Any = blocks.kept(validation[0])
        self.labels = np.asarray(validation[1])
        if not len(self.images):
            raise UserError(
                "quantizer search: the data set has no validation images to judge settings by; "
                "give it a validation split (datasets.NAME.validation)"
            )
        self.input_scaling, self.threads = input_scaling, threads
        self.memo = Memo()
        self.target = load_targets()[EXECUTED_FOR]
        name = position_search.logits_name(self.network)
        with blocks.on_cores(threads):
            x = blocks.Pictures(self.images, input_scaling)
            self.float_logits = float_values(self.network, x, [name])[name]
        if not is_logits(self.float_logits):
            raise UserError(
                f"quantizer search: judges settings by the classes of pictures, and layer {name!r} gives "
                f"{list(self.float_logits.shape[1:])}, no vector of one value for each class"
            )
        self.distance = LogitDistance(self.float_logits)
        self.float_correct = int((self.float_logits.argmax(axis=1) == self.labels).sum())

    def quantize(self, setting: Mapping[str, Any]) -> Outcome:
        """The Outcome of a setting, with the network that `reference.quantize` makes."""
        settings = complete(setting)
        images = blocks.first(self.calibration, settings["calibration"]["images"])
        with blocks.on_cores(self.threads):
            return Quantization(self.network, images, settings, self.input_scaling, self.memo).run()

    def logits(self, quantized: QuantizedNetwork) -> tuple[np.ndarray, np.ndarray]:
        """Logits of every validation image in the emulator: float32 (N, classes), and their int8 values.

        UserError when the network cannot be compiled.
        """
        name = position_search.logits_name(quantized.network)
        graph = lower(quantized, self.target)
        graph.attrs["return_ops"] = [name]
        with Emulator(graph, threads=self.threads) as emulator:
            parts = [
                emulator.run(emulator.quantize_input(self.images[start : start + BATCH]))
                for start in range(0, len(self.images), BATCH)
            ]
        values = np.concatenate(parts).reshape(len(self.images), -1)
        return values * np.float32(2.0 ** -quantized.fix_points[name]), values

    def measure(self, setting: Mapping[str, Any]) -> Row:
        """One row: what the setting does on the validation images.

        correct, accuracy, interval95 (Wilson), agreement (share of images with the float
        network's class), divergence (`distance.LogitDistance`) and sqnr_db of the logits, seconds
        (of quantizing with this setting alone: shared steps count in full), predictions.
        A setting whose network cannot be compiled has the key error instead.
        """
        begun = self.memo.alone()
        outcome = self.quantize(setting)
        seconds = self.memo.alone() - begun
        # different settings may end in one network
        answers = self.memo(("answers", outcome.made.key), lambda: self.answers(outcome.quantized))
        return {"setting": setting, "seconds": seconds, **answers}

    def answers(self, quantized: QuantizedNetwork) -> Row:
        """The part of a row that the network decides."""
        try:
            logits, values = self.logits(quantized)
        except UserError as error:
            return {"error": str(error)}
        # of the integers: equal ones stay equal
        predictions = values.argmax(axis=1)
        correct = int((predictions == self.labels).sum())
        return {
            "correct": correct,
            "accuracy": correct / len(self.labels),
            "interval95": list(wilson_interval(correct, len(self.labels))),
            "agreement": agreement(logits, self.float_logits),
            "divergence": float(f"{self.distance(logits):.6g}"),
            "sqnr_db": sqnr_db(self.float_logits, logits),
            "predictions": predictions,
        }

    def ranked(self, rows: Sequence[Row]) -> list[Row]:
        """The rows, best first, with rank and p_value (McNemar's, of "as good as the first").

        By divergence of the logits from the float network's, then by agreement with it: right answers on
        some hundred images are noise. Settings that cannot be compiled come last.
        """
        order = sorted(
            rows,
            key=lambda r: (
                "error" in r,
                r.get("divergence", 0),
                -r.get("agreement", 0),
                -r.get("correct", 0),
            ),
        )
        first = order[0].get("predictions")
        ranked = []
        for rank, row in enumerate(order, 1):
            own = row.get("predictions")
            p_value = None
            if own is not None:
                right, best = own == self.labels, first == self.labels
                p_value = mcnemar_exact(int((right & ~best).sum()), int((best & ~right).sum()))
            kept = {key: value for key, value in row.items() if key != "predictions"}
            ranked.append({"rank": rank, **kept, "p_value": p_value})
        return ranked
