"""What a step of a plan runs: a function of its inputs, made of an op once."""

from collections.abc import Callable, Sequence

import numpy as np

from dpuflow.emulator.operations import Constants
from dpuflow.emulator.workspace import Kernel, Workspace
from dpuflow.xir import Graph, Op

StepFunction = Kernel
"""Function(inputs, workspace) -> the op's tensor."""
Maker = Callable[[Op, Graph, Constants], StepFunction]


class Chosen:
    """A function together with the names of the inputs it wants (constants left out)."""

    def __init__(self, function: StepFunction, inputs: Sequence[str]) -> None:
        self.function = function
        self.inputs = inputs

    def __call__(self, inputs: Sequence[np.ndarray], workspace: Workspace) -> np.ndarray:
        return self.function(inputs, workspace)


def one(function: Callable[[np.ndarray], np.ndarray]) -> StepFunction:
    """Step function of a unary NumPy function."""
    return lambda inputs, workspace: function(inputs[0])
