"""An ONNX model as trained: what onnxruntime answers for images, on any number of cores alike."""

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.onnx_graph.model_file import OpenedModel

THREADS = 2
"""Of onnxruntime, always: other numbers may cut its sums elsewhere and give other last bits."""
BATCH = 16
"""Images at a time where the model leaves their number open; bounds memory."""


def classes(outputs: np.ndarray) -> np.ndarray:
    """The class of each image: the greatest of its values; of one sigmoid, whether it exceeds a half."""
    if outputs.shape[1] == 1:
        return (outputs[:, 0] > 0.5).astype(np.int64)
    return outputs.argmax(axis=1)


class OnnxModel:
    """An opened model, ready to answer images.

    Parameters
    ----------
    opened : as `model_file.open_model` gives it.
    """

    def __init__(self, opened: OpenedModel) -> None:
        import onnxruntime

        self.opened = opened
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
        options.use_deterministic_compute = True
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(
                opened.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
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
        return BATCH if len(answers) == len(x) else 1

    def run(self, x: np.ndarray) -> np.ndarray:
        """Output (N, values) float32 of every image of x, float32 (N, H, W, C)."""
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
            if len(answers) != len(part):
                raise UserError(
                    f"{self.opened.path}: its output {self.opened.output!r} has the shape {answers.shape} "
                    f"for {len(part)} images; the first axis must count the images"
                )
            parts.append(answers[:count].reshape(count, -1))
        return np.concatenate(parts)

    def _run(self, x):
        try:
            return self._session.run([self.opened.output], {self.opened.input: x})[0]
        except Exception as error:
            raise UserError(
                f"{self.opened.path}: onnxruntime cannot run it ({str(error).splitlines()[0]})"
            ) from None
