"""All operators by kind, and the proof that a stage's table knows each of them."""

from collections.abc import Callable, Mapping

from dpuflow.ops.activation import BatchNorm, LeakyRelu, Relu, Relu6, Softmax
from dpuflow.ops.convolution import Convolution, Dense, DepthwiseConvolution
from dpuflow.ops.joining import Add, Concat
from dpuflow.ops.moving import Flatten, Input
from dpuflow.ops.operator import Operator
from dpuflow.ops.pooling import AveragePool, MaxPool

OPERATORS: dict[str, type[Operator]] = {
    operator.kind: operator
    for operator in (
        *(Input, Convolution, DepthwiseConvolution, Dense, MaxPool, AveragePool, Add, Concat, Flatten),
        *(Relu, Relu6, LeakyRelu, BatchNorm, Softmax),
    )
}


def kinds(trait: Callable[[type[Operator]], object] = lambda operator: True) -> tuple[str, ...]:
    """Kinds of the operators for which `trait` holds, in the registry's order."""
    return tuple(kind for kind, operator in OPERATORS.items() if trait(operator))


def make(kind: str, attrs: Mapping[str, object]) -> Operator:
    """The operator of a layer; ValueError for an unknown kind or other attributes than the kind has."""
    if kind not in OPERATORS:
        raise ValueError("unknown op")
    operator = OPERATORS[kind]
    if attrs.keys() != set(operator.attributes()):
        raise ValueError(f"settings {sorted(attrs)}, expected {sorted(operator.attributes())}")
    return operator(**attrs)
