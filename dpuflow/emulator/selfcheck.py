"""Compare the fast kernels with the oracle on many random cases.

    python -m dpuflow.emulator.selfcheck --cases 10000 [--seed 0]

Four cases of five are single operations, one is a small graph; each runs on the oracle,
on the NumPy kernels and, where the machine has them, on the native kernels. Exit status
1 and the seed of each differing case if any int8 value differs.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence

import numpy as np

from dpuflow.emulator import Emulator, c_kernels, oracle, random_cases
from dpuflow.emulator.implementations import prepare
from dpuflow.emulator.operations import INTEGER_OPS, Operation
from dpuflow.emulator.plan import SOURCES
from dpuflow.emulator.workspace import Workspace
from dpuflow.xir import Graph
from dpuflow.xir.parameters import constants

GRAPH_EVERY = 5


def backends() -> list[str]:
    """The fast implementations on this machine: names."""
    return ["numpy"] if c_kernels.library() is None else ["numpy", "native"]


def operation_differences(op: Operation, inputs: Sequence[np.ndarray]) -> list[str]:
    """Names of the backends whose result differs from the oracle's."""
    expected = oracle.apply(op, *inputs)
    different = []
    for backend in backends():
        kernel = prepare(op, [x.shape for x in inputs], native=backend == "native")
        result = kernel(list(inputs), Workspace())
        if result.shape != expected.shape or (result != expected).any():
            different.append(backend)
    return different


def oracle_tensors(graph: Graph, batch: np.ndarray) -> dict[str, np.ndarray]:
    """{op name: int8 array} of a compiled graph's integer ops, every one by the oracle."""
    known = constants(graph)
    tensors: dict[str, np.ndarray] = {}
    for op in graph.ops:
        inputs = [tensors[name] for name in op.inputs.get("input", []) if name in tensors]
        if op.type in SOURCES:
            tensors[op.name] = batch
        elif op.type in INTEGER_OPS:
            tensors[op.name] = oracle.apply(INTEGER_OPS[op.type](op, graph, known), *inputs)
        elif op.type in ("upload", "download", "reshape-fix"):
            tensors[op.name] = inputs[0].reshape(len(batch), *op.tensor.shape[1:])
    return tensors


def graph_differences(graph: Graph, batch: np.ndarray) -> list[tuple[str, str]]:
    """(backend, op name) of every integer tensor that differs from the oracle's."""
    expected = oracle_tensors(graph, batch)
    different = []
    for backend in backends():
        with Emulator(graph, threads=2, use_native=backend == "native") as emulator:
            tensors = emulator.run(batch, dump=True)
        for name, value in expected.items():
            if tensors[name].shape != value.shape or (tensors[name] != value).any():
                different.append((backend, name))
    return different


def check(seed: int, number: int) -> tuple[str, Sequence[object]]:
    """(kind, differences) of case `number`."""
    rng = np.random.default_rng([seed, number])
    if number % GRAPH_EVERY:
        kind, op, inputs = random_cases.operation(rng)
        return kind, operation_differences(op, inputs)
    graph = random_cases.graph(rng)
    batch = random_cases.values(rng, (int(rng.integers(1, 6)), *graph.ops[0].tensor.shape[1:]))
    return "graph", graph_differences(graph, batch)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--cases", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    counts: Counter[str] = Counter()
    failed = 0
    for number in range(chosen.cases):
        kind, differences = check(chosen.seed, number)
        counts[kind] += 1
        if differences:
            failed += 1
            print(f"case {number} of seed {chosen.seed} ({kind}) differs: {differences}")
    listed = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    print(f"{chosen.cases} cases ({listed}) on oracle, {', '.join(backends())}: {failed} differ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
