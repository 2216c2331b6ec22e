"""Does a model from elsewhere fit the data set?"""

from dpuflow.base.errors import UserError


def check_fits(path, inputs, outputs, image_shape, classes):
    """Raise UserError unless the model has one input of `image_shape` and one output of `classes`.

    inputs, outputs : lists of shapes without the batch dimension; None for an open size.
    """
    for what, shapes, expected in (("input", inputs, tuple(image_shape)), ("output", outputs, (classes,))):
        if len(shapes) != 1:
            raise UserError(f"{path}: has {len(shapes)} {what}s; dpuflow takes models with one")
        shape = tuple(shapes[0])
        if len(shape) != len(expected) or any(
            a not in (None, b) for a, b in zip(shape, expected, strict=True)
        ):
            raise UserError(
                f"{path}: its {what} has the shape {shape}, the data set needs {expected}; "
                "retrain the model for this data set or choose another data set"
            )
