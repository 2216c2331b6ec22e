"""The weights of an H5 model that dpuflow wrote, read one at a time to where TensorFlow takes them over.

Keras reads all weights before it gives the first to its layer, of which each has random ones by then, and
TensorFlow copies both; what it allocated itself it never gives back. Of 553 MB of weights that made 2.5 GB.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dpuflow.base.aligned import aligned
from dpuflow.base.errors import UserError
from dpuflow.base.hdf5 import check_stored
from dpuflow.base.tensorflow_env import tensorflow

GROUP, TOP_LEVEL, NAMES = "model_weights", "top_level_model_weights", "weight_names"


def stored_weights(path: Path | str, file: h5py.File, model: Any) -> list[tuple[Any, h5py.Dataset]]:
    """(variable, where its value lies) of every weight of `model`, built of the file's configuration.

    UserError when the file holds other weights than the model has. (The form: Keras stores of each layer the
    trainable weights and then the others, by the layer's name.)
    """
    try:
        groups, found = file[GROUP], list[tuple[Any, h5py.Dataset]]()
        for layer in model.layers:
            variables = [*layer.trainable_weights, *layer.non_trainable_weights]
            group = groups[layer.name]
            found += zip(variables, [group[name] for name in _names(group)], strict=True)
        if TOP_LEVEL in groups and _names(groups[TOP_LEVEL]):
            raise ValueError("it has weights of no layer")
        for _, dataset in found:
            check_stored(dataset)
        missing = {variable.name for variable in model.weights} - {variable.name for variable, _ in found}
        if missing or len(model.weights) != len(found):
            raise ValueError(f"{len(found)} weights for the {len(model.weights)} of its configuration")
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # h5py has no exceptions of its own: damage shows as any of these
        raise UserError(f"{path}: Keras cannot load this model (its weights: {error})") from None
    return found


def _names(group):
    """A list of names among attributes, which Keras writes in parts where it is long."""
    parts = [NAMES] if NAMES in group.attrs else []
    while f"{NAMES}{len(parts)}" in group.attrs:
        parts.append(f"{NAMES}{len(parts)}")
    if not parts:
        raise ValueError(f"{group.name} names no weights")
    names = [name for part in parts for name in group.attrs[part]]
    return [name.decode() if isinstance(name, bytes) else name for name in names]


def stored_value(dataset: h5py.Dataset) -> np.ndarray:
    """The value as an array that TensorFlow takes over without a copy."""
    value = aligned(dataset.shape, dataset.dtype)
    if value.size:
        dataset.read_direct(value)
    return value


@contextmanager
def without_values() -> Iterator[None]:
    """Variables that are made in the block begin as views of one array of zeros that nobody touches.

    What Keras would begin with is not made: random numbers, of which TensorFlow keeps the memory.
    """
    tf, zeros = tensorflow(), dict[str, np.ndarray]()

    def creator(next_creator: Any, **arguments: Any) -> Any:
        shape, initial = tf.TensorShape(arguments.get("shape")), arguments.get("initial_value")
        if callable(initial) and shape.is_fully_defined() and shape.num_elements():
            dtype = tf.as_dtype(arguments["dtype"]).as_numpy_dtype
            key = np.dtype(dtype).str
            if key not in zeros or zeros[key].size < shape.num_elements():
                zeros[key] = aligned((shape.num_elements(),), dtype, zeros=True)
            view = zeros[key][: shape.num_elements()].reshape(shape.as_list())
            arguments["initial_value"] = tf.raw_ops.Identity(input=view)
        return next_creator(**arguments)

    with tf.variable_creator_scope(creator):
        yield


def give_weights(path: Path | str, model: Any) -> None:
    """Give a model built in `without_values` what the file holds; UserError as `stored_weights`."""
    tf = tensorflow()
    with h5py.File(path, "r") as file:
        for variable, dataset in stored_weights(path, file, model):
            if tuple(variable.shape) != dataset.shape:
                raise UserError(
                    f"{path}: Keras cannot load this model (its weights: {variable.name} has the shape "
                    f"{dataset.shape}, {tuple(variable.shape)} by its configuration)"
                )
            # of `assign` TensorFlow would copy
            tf.raw_ops.AssignVariableOp(resource=variable.handle, value=stored_value(dataset))
    for layer in model.layers:
        layer.finalize_state()


def values_of(model: Any) -> list[np.ndarray]:
    """What the weights of a model or layer are, where TensorFlow has them: only to be read."""
    return [np.asarray(memoryview(variable.read_value())) for variable in model.weights]


def share_values(model: Any, values: Sequence[np.ndarray]) -> None:
    """`set_weights` of a model or layer, without a copy of what `values_of` another one gave.

    ValueError when there are not so many weights, or of other shapes.
    """
    tf = tensorflow()
    for variable, value in zip(model.weights, values, strict=True):
        if tuple(variable.shape) != value.shape:
            raise ValueError(f"{variable.name} of the shape {variable.shape} cannot be {value.shape}")
        value = np.asarray(value, variable.dtype.as_numpy_dtype, order="C")
        tf.raw_ops.AssignVariableOp(resource=variable.handle, value=value)


def give_any_values(model: Any) -> None:
    """Random weights from 0.5 up to 1, for a model of which only the layers count."""
    random = np.random.default_rng(0)
    for variable in model.weights:
        value = aligned(tuple(variable.shape), variable.dtype.as_numpy_dtype)
        if value.dtype == np.float32:
            random.random(out=value, dtype=np.float32)
            value *= 0.5
            value += 0.5
        else:
            value[...] = 1
        tensorflow().raw_ops.AssignVariableOp(resource=variable.handle, value=value)
