"""Operators of a network: one class each, with everything about it that no stage decides."""

from dpuflow.ops.activations import ACTIVATIONS
from dpuflow.ops.operator import Operator
from dpuflow.ops.registry import OPERATORS, kinds, make

__all__ = ["ACTIVATIONS", "OPERATORS", "Operator", "kinds", "make"]
