"""The variables of a checkpoint, of which one at a time is in memory.

TensorFlow freezes a graph with all of them in a session, in a list, in the constants of a message, and in
each of the messages that this is turned into: eight times the weights. Here it gets stand-ins for the large
ones, and their values are read when the frozen graph is written.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Self

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.protobuf_pieces import LARGE, Later
from dpuflow.base.tensorflow_env import tensorflow
from dpuflow.tfgraph.graph_def import Message

READ = "/Read/ReadVariableOp"
"""What TensorFlow appends to a variable's name for the node that gives its value."""
STAND_IN = 2
"""Values of a stand-in: one alone is written otherwise."""


class Variables:
    """Values of variables, as what freezes a graph asks a session for them.

    A context in which whatever is wrong with the checkpoint, or with the graph beside it, is a UserError.
    """

    def __init__(self, prefix: str) -> None:
        """prefix : of the checkpoint's files."""
        self.prefix = prefix
        self._large: dict[str, Sequence[int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (ValueError, tensorflow().errors.OpError)):
            raise UserError(f"{self.prefix}: cannot be restored ({str(error).splitlines()[0]})") from None

    def run(self, tensors: Sequence[str]) -> list[np.ndarray]:
        """The value of each tensor that reads a variable; of a large one a stand-in."""
        reader = tensorflow().train.load_checkpoint(self.prefix)
        shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
        values = []
        for tensor in tensors:
            name = tensor.removesuffix(":0").removesuffix(READ)
            if name not in shapes:
                raise ValueError(f"it has no variable {name!r}")
            dtype = np.dtype(dtypes[name].as_numpy_dtype)
            if np.prod(shapes[name]) * dtype.itemsize >= LARGE:
                self._large[name] = shapes[name]
                values.append(np.zeros(STAND_IN, dtype))
            else:
                values.append(reader.get_tensor(name))
        return values

    def fill(self, graph: Message) -> Mapping[bytes, Later]:
        """Give constants that are stand-ins their shapes; returns what to write in place of their values."""
        instead = {}
        for node in graph.node:
            shape = self._large.get(node.name)
            if shape is None:
                continue
            tensor = node.attr["value"].tensor
            del tensor.tensor_shape.dim[:]
            for size in shape:
                tensor.tensor_shape.dim.add(size=size)
            itemsize = len(tensor.tensor_content) // STAND_IN
            tensor.tensor_content = b"\0value of the variable \0" + node.name.encode() + b"\0"
            size = int(np.prod(shape)) * itemsize
            instead[tensor.tensor_content] = Later(size, partial(self._content, node.name))
        return instead

    def _content(self, name):
        value = tensorflow().train.load_checkpoint(self.prefix).get_tensor(name)
        return memoryview(np.ascontiguousarray(value)).cast("B")
