"""An ONNX model as trained: what onnxruntime answers for images, on any number of cores alike."""

import math
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.protobuf_pieces import pieces
from dpuflow.onnx_graph.model_file import OpenedModel

THREADS = 2
"""Of onnxruntime, always: other numbers may cut its sums elsewhere and give other last bits."""
LARGE = 16 << 20
"""Weights of a model that goes to onnxruntime as a file."""
BATCH = 4
"""Images at a time where the model leaves their number open: their maps stay in the caches, and memory is
bounded. With 16, EfficientNet-Lite0 takes a third longer."""


def classes(outputs: np.ndarray) -> np.ndarray:
    """The class of each image: the greatest of its values; of one sigmoid, whether it exceeds a half."""
    if outputs.shape[1] == 1:
        return (outputs[:, 0] > 0.5).astype(np.int64)
    return outputs.argmax(axis=1)


def _session(model, options):
    """A session of onnxruntime of a model or a file; a large model becomes a file, once less in memory."""
    import onnxruntime

    providers = ["CPUExecutionProvider"]
    if isinstance(model, str):
        return onnxruntime.InferenceSession(model, options, providers=providers)
    if sum(math.prod(tensor.dims) for tensor in model.graph.initializer) < LARGE:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
    with tempfile.NamedTemporaryFile(prefix="dpuflow-", suffix=".onnx") as file:
        for piece in pieces(model):
            file.write(piece)
        file.flush()
        return onnxruntime.InferenceSession(file.name, options, providers=providers)


class OnnxModel:
    """An opened model, ready to answer images.

    Parameters
    ----------
    opened : as `model_file.open_model` gives it. written : a file that the model is in
        (`model_file.write_model`); then `opened` needs none.
    """

    def __init__(self, opened: OpenedModel, written: Path | str | None = None) -> None:
        import onnxruntime

        self.opened = replace(opened, model=None)  # its weights are in the session
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
        options.use_deterministic_compute = True
        # a thread that has nothing to do sleeps: looking for work took half of the processor time
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4
        try:
            self._session = _session(opened.model if written is None else str(written), options)
        except Exception as error:  # a class for each status code, and no common one
            raise UserError(
                f"{opened.path}: onnxruntime cannot load it ({str(error).splitlines()[0]})"
            ) from None
        self._batch = opened.batch or self._found_batch()

    def _found_batch(self) -> int:
        """BATCH, or 1 where the model was written for one image although it leaves their number open."""
        x = np.zeros((2, *self.opened.dims), np.float32)
        try:
            answers = self._run(x)
        except UserError:
            return 1
        return BATCH if all(len(values) == len(x) for values in answers) else 1

    def run(self, x: np.ndarray) -> np.ndarray:
        """The only output (N, values) float32 of every image of x, float32 (N, H, W, C)."""
        outputs = self.run_all(x)
        if len(outputs) != 1:
            raise ValueError(f"{self.opened.path} has the outputs {', '.join(outputs)}, not one")
        return next(iter(outputs.values())).reshape(len(x), -1)

    def run_all(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """{output's name: (N, ...), as ONNX has its axes} of every image of x, float32 (N, H, W, C)."""
        if self.opened.order is None:
            x = x.reshape(len(x), *self.opened.dims)
        else:
            x = x.transpose(0, *(axis + 1 for axis in self.opened.order))
        parts = []
        for start in range(0, len(x), self._batch):
            part = np.ascontiguousarray(x[start : start + self._batch], np.float32)
            count = len(part)
            if self.opened.batch and count < self.opened.batch:  # a fixed batch is always full
                part = np.concatenate([part, np.repeat(part[-1:], self.opened.batch - count, axis=0)])
            answers = self._run(part)
            for name, values in zip(self.opened.outputs.values(), answers, strict=True):
                if len(values) != len(part):
                    raise UserError(
                        f"{self.opened.path}: its output {name!r} has the shape {values.shape} "
                        f"for {len(part)} images; the first axis must count the images"
                    )
            parts.append([values[:count] for values in answers])
        joined = (np.concatenate(values) for values in zip(*parts, strict=True))
        return dict(zip(self.opened.outputs, joined, strict=True))

    def _run(self, x):
        names = list(self.opened.outputs.values())
        try:
            return self._session.run(names, {self.opened.input: x})
        except Exception as error:
            raise UserError(
                f"{self.opened.path}: onnxruntime cannot run it ({str(error).splitlines()[0]})"
            ) from None
