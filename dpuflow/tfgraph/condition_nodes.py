"""TensorFlow ops of training switches and dropout, followed on the side that inference takes (see `values`).

A graph that was frozen out of training holds both sides of its training switch (Switch and Merge of
TensorFlow 1, or a Select) and placeholders for the switch and for dropout's rate. Reading gives these
placeholders the values of inference:

- a boolean placeholder (or PlaceholderWithDefault) whose name speaks of training or of the learning phase
  is false, one whose name speaks of testing or inference is true;
- a number that random numbers are compared with or added to is dropout's: a rate becomes 0, a probability
  of keeping becomes 1, whichever the graph does with it.

Everything on the dead side of a Switch is dead, whatever it is.
"""

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from dpuflow.tfgraph.graph_def import DT_BOOL
from dpuflow.tfgraph.values import ANY, DEAD, Constant, Node, Random, Tensor, Translator, Value, constant

PLACEHOLDERS = ("Placeholder", "PlaceholderWithDefault", "PlaceholderV2")
RANDOM = ("RandomUniform", "StatelessRandomUniform", "StatelessRandomUniformV2")
_TRAINING = {"train", "training", "learning", "phase", "istraining", "istrain"}
_INFERENCE = {"test", "testing", "inference", "infer", "eval", "evaluation", "predict", "prediction"}
_PASSES = ("Identity", "Switch", "Cast", "Reshape", "ExpandDims", "Merge", "StopGradient")
_DIRECT, _INVERSE = "direct", "inverse"

Readers = dict[str, list[tuple[Node, int, list[bool]]]]
"""Node name -> (reading node, index of its input, which of its inputs are random)."""


def inference_value(node: Node, readers: Readers) -> np.ndarray | None:
    """The value that a placeholder has in inference, as a NumPy array; None if it is not a switch.

    readers : node name -> list of (reading node, index of its input, which of its inputs are random).
    """
    if node.op not in PLACEHOLDERS:
        return None
    if node.attr["dtype"].type == DT_BOOL:
        words = set(re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", node.name).lower()))
        if words & {"not", "no"} or bool(words & _TRAINING) == bool(words & _INFERENCE):
            return None
        return np.array(bool(words & _INFERENCE))
    role = _dropout_role(node.name, readers)
    return None if role is None else np.array(1.0 if role == "keep" else 0.0, np.float32)


def _dropout_role(name, readers):
    """ "keep" or "rate" if what is called `name` meets random numbers, else None."""
    pending, seen = [(name, _DIRECT)], set()
    while pending:
        here = pending.pop()
        if here in seen:
            continue
        seen.add(here)
        for reader, index, random in readers.get(here[0], ()):
            direct = here[1] == _DIRECT
            other_random = any(random[:index] + random[index + 1 :])
            if reader.op in ("Add", "AddV2") and other_random:  # floor(keep + random)
                return "keep" if direct else "rate"
            if reader.op in ("GreaterEqual", "Less") and other_random:  # random >= rate, random < keep
                rate = (reader.op == "GreaterEqual") == (index == 1)
                return "rate" if rate == direct else "keep"
            if reader.op == "Sub" and index == 1 and not random[0]:  # 1 - keep
                pending.append((reader.name, _INVERSE if direct else _DIRECT))
            elif reader.op in _PASSES:
                pending.append((reader.name, here[1]))
    return None


def readers_of(nodes: Iterable[Node], references: Callable[[Node], Sequence[str]]) -> Readers:
    """The `readers` of `inference_value` for all nodes.

    nodes : sources before readers; references(node) : names of the nodes that it reads.
    """
    random: set[str] = set()
    readers: Readers = {}
    for node in nodes:
        sources = references(node)
        flags = [source in random for source in sources]
        if node.op in RANDOM or (any(flags) and node.op in ("Add", "AddV2", "Mul", "Sub", "Identity")):
            random.add(node.name)
        for index, source in enumerate(sources):
            readers.setdefault(source, []).append((node, index, flags))
    return readers


# -- conditions ----------------------------------------------------------------------------


def _switch(translator, node, inputs):
    """tf.cond: [false side, true side]; the condition is known."""
    taken = bool(constant(translator, node, inputs[1], "the condition of a Switch"))
    return [DEAD, inputs[0]] if taken else [inputs[0], DEAD]


def _merge(translator, node, inputs):
    alive = [(k, value) for k, value in enumerate(inputs) if value is not DEAD]
    if len(alive) != 1:
        translator.fail(node, "both sides of a condition are alive; freeze the training switch to a constant")
    index, value = alive[0]
    return [value, Constant(np.array(index, np.int32))]


def _select(translator, node, inputs):
    """where(condition, a, b) with a known condition, the same for all values."""
    condition = constant(translator, node, inputs[0], "the condition")
    if not any(isinstance(value, Tensor) for value in inputs[1:]):
        return Constant(np.where(condition, *(constant(translator, node, v, "a choice") for v in inputs[1:])))
    if not condition.size or condition.min() != condition.max():
        translator.fail(node, "chooses differently for different values; only a switch is supported")
    return inputs[1] if condition.reshape(-1)[0] else inputs[2]


def _logical(function):
    def handler(translator: Translator, node: Node, inputs: Sequence[Value]) -> Value:
        return Constant(np.asarray(function(*(constant(translator, node, v, "a condition") for v in inputs))))

    return handler


# -- dropout -------------------------------------------------------------------------------


def _random(translator, node, inputs):
    return Random()


def _floor(translator, node, inputs):
    if isinstance(inputs[0], Random):
        low, high = np.floor(inputs[0].low), np.ceil(inputs[0].high) - 1
        return _decided(translator, node, low == high, np.float32(low))
    return Constant(np.floor(constant(translator, node, inputs[0], "the argument")))


def _compared(op):
    """Handler of a comparison, of constants or of random numbers with a constant."""
    function = {"GreaterEqual": np.greater_equal, "Less": np.less}[op]

    def handler(translator: Translator, node: Node, inputs: Sequence[Value]) -> Value:
        if not any(isinstance(value, Random) for value in inputs):
            return _logical(function)(translator, node, inputs)
        number = next(value for value in inputs if isinstance(value, Random))
        other = next((value for value in inputs if isinstance(value, Constant)), None)
        if other is None or other.array.size != 1:
            translator.fail(node, "compares random numbers; freeze the graph for inference (dropout off)")
        limit, first = float(other.array.reshape(())), inputs[0] is number
        above, below = number.low >= limit, number.high <= limit
        greater = (op == "GreaterEqual") == first  # the random number is to be the greater one
        if not first:  # other >= number, other < number: equality falls to the other side
            above = number.low > limit
        return _decided(translator, node, above or below, np.bool_(above if greater else below))

    return handler


def _decided(translator, node, certain, value):
    if not certain:
        translator.fail(
            node,
            "dropout is active: its rate is frozen above 0, so the graph gives random answers; "
            "freeze it for inference (rate 0, or a probability of keeping of 1)",
        )
    return Constant(np.asarray(value))


INPUTS = {
    **dict.fromkeys(("Equal", "GreaterEqual", "Less", "LogicalAnd", "LogicalOr", "Switch"), (2, 2)),
    **dict.fromkeys(("Merge", *RANDOM), (1, ANY)),
    **dict.fromkeys(("Select", "SelectV2"), (3, 3)),
}
"""op -> (fewest, most) inputs; an op that is not here has one."""

HANDLERS = {
    **dict.fromkeys(RANDOM, _random),
    "Equal": _logical(np.equal),
    "Floor": _floor,
    "GreaterEqual": _compared("GreaterEqual"),
    "Less": _compared("Less"),
    "LogicalAnd": _logical(np.logical_and),
    "LogicalNot": _logical(np.logical_not),
    "LogicalOr": _logical(np.logical_or),
    "Merge": _merge,
    "PlaceholderWithDefault": lambda translator, node, inputs: inputs[0],
    "Select": _select,
    "SelectV2": _select,
    "Switch": _switch,
}
