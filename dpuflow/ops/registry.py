"""All operators by kind: every class of this package that has one is registered by being defined."""

from collections.abc import Callable, Mapping
from types import ModuleType

from dpuflow.ops import (
    activation,
    convolution,
    floats,
    gating,
    joining,
    moving,
    pooling,
    rearranging,
    resampling,
)
from dpuflow.ops import transposed as transposed_convolution
from dpuflow.ops.operator import Operator

MODULES = (
    *(moving, convolution, transposed_convolution, pooling, resampling, rearranging, joining, gating),
    *(activation, floats),
)
"""Where operators are defined; a new module of operators is named here."""


def defined(module: ModuleType) -> list[type[Operator]]:
    """The operators that a module defines, in its order: its classes with a `kind` of their own."""
    return [
        found
        for found in vars(module).values()
        if isinstance(found, type) and issubclass(found, Operator) and "kind" in vars(found)
        if found.__module__ == module.__name__
    ]


OPERATORS: dict[str, type[Operator]] = {
    operator.kind: operator for module in MODULES for operator in defined(module)
}


def kinds(trait: Callable[[type[Operator]], object] = lambda operator: True) -> tuple[str, ...]:
    """Kinds of the operators for which `trait` holds, in the registry's order."""
    return tuple(kind for kind, operator in OPERATORS.items() if trait(operator))


def make(kind: str, attrs: Mapping[str, object]) -> Operator:
    """The operator of a layer; ValueError for an unknown kind or other attributes than the kind has."""
    if kind not in OPERATORS:
        known = ", ".join(OPERATORS)
        raise ValueError(f"unknown op: no class of dpuflow.ops is a {kind!r}; known are {known}")
    operator = OPERATORS[kind]
    if attrs.keys() != set(operator.attributes()):
        raise ValueError(f"settings {sorted(attrs)}, expected {sorted(operator.attributes())}")
    return operator(**attrs)
