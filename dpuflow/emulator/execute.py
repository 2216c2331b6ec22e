"""Executing a plan over a batch.

Neighbouring steps that the compiled kernels can execute become one program (`native_program`), which does
all of a portion of images in one call. Other steps run block by block in Python, so that intermediates stay
in the processor's cache, with one worker thread per core. A result does not depend on its neighbours in the
batch, so blocks, portions and threads change the speed only.
"""

import math
import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache

import numpy as np
from threadpoolctl import ThreadpoolController

from dpuflow.emulator.native_program import Program
from dpuflow.emulator.plan import Plan, Step
from dpuflow.emulator.workspace import Workspace
from dpuflow.xir.shapes import Shape

CACHE_BYTES = 1 << 22
"""Aim for the activations that one block reads and writes in its largest Python step; smaller blocks
cost more in Python, larger ones leave the processor's cache (measured: flat from here on)."""
LARGEST_BLOCK = 256
PORTION_BYTES = 1 << 26
"""Bound on what programs hand to each other and to Python, for all images of a portion."""

Values = dict[str, np.ndarray]


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


class Executor:
    """Runs one plan with `threads` worker threads."""

    def __init__(self, plan: Plan, threads: int, bytes_per_value: int) -> None:
        self.plan = plan
        self.threads = threads
        self._bytes_per_value = bytes_per_value
        self._pool = ThreadPoolExecutor(threads)
        self._calls: dict[bool, _Call] = {}
        self._shapes = {step.name: step.shape for step in plan.steps}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Stop the worker threads."""
        self._pool.shutdown()

    def __call__(self, inputs: Mapping[str, np.ndarray], dump: bool = False) -> Values:
        """{source name: array (N, ...)} -> {name: array (N, ...)} of the outputs, or of all ops."""
        with self._lock:
            if dump not in self._calls:
                shapes = {name: x.shape for name, x in inputs.items()}
                self._calls[dump] = self._call(shapes, dump)
        call = self._calls[dump]
        units, wanted = call.units, call.wanted
        count = next(iter(inputs.values())).shape[0]
        results: Values = {name: np.empty((count, *shape), np.int8) for name, shape in call.compiled.items()}
        size = call.portion or count or 1
        for start in range(0, count, size) if count else (0,):
            portion = slice(start, min(start + size, count))
            values = {**self.plan.constants, **{name: x[portion] for name, x in inputs.items()}}
            for unit in units:
                unit.run(values, {name: x[portion] for name, x in results.items()})
            for name in wanted:
                if name not in results:
                    results[name] = np.empty((count, *values[name].shape[1:]), values[name].dtype)
                if values[name].base is not results[name]:
                    np.copyto(results[name][portion], values[name])
        return {name: results[name] for name in wanted}

    def _call(self, shapes: Mapping[str, Shape], dump: bool) -> "_Call":
        """What is the same for every call."""
        wanted = [step.name for step in self.plan.steps] if dump else list(self.plan.outputs)
        units = self._divide(shapes, wanted)
        made = {name for unit in units if isinstance(unit, _Compiled) for name in unit.outputs}
        handed = 4 * sum(math.prod(self._shapes[name][1:]) for unit in units[:-1] for name in unit.outputs)
        portion = max(self.threads, PORTION_BYTES // max(1, handed)) if len(units) > 1 else 0
        return _Call(
            units, wanted, {name: self._shapes[name][1:] for name in wanted if name in made}, portion
        )

    def _divide(self, shapes: Mapping[str, Shape], wanted: Sequence[str]) -> list["_Compiled | _Interpreted"]:
        """The steps that `wanted` needs as units: as much as can be in each, programs first."""
        done, left, parts = {*self.plan.sources, *self.plan.constants}, self._needed(wanted), []

        def take(fits: Callable[[Step], bool]) -> list[Step]:
            taken = []
            for step in left:
                if fits(step) and done.issuperset(step.inputs):
                    taken.append(step)
                    done.add(step.name)
            return taken

        while left:
            chosen = take(lambda step: step.node is not None)
            if not any(step.node and step.node.operation for step in chosen):
                done.difference_update(step.name for step in chosen)
                chosen = take(lambda step: not (step.node and step.node.operation))
            left = [step for step in left if step.name not in done]
            parts.append(chosen)
        units: list[_Compiled | _Interpreted] = []
        for i, steps in enumerate(parts):
            inside = {step.name for step in steps}
            read = {name for part in parts[:i] + parts[i + 1 :] for step in part for name in step.inputs}
            outputs = tuple(step.name for step in steps if step.name in read or step.name in wanted)
            if any(step.node and step.node.operation for step in steps):
                given = {name: None for step in steps for name in step.inputs if name not in inside}
                known = {**self._shapes, **shapes}
                sources = {name: known[name] for name in given if name not in self.plan.constants}
                fixed = {name: self.plan.constants[name] for name in given if name in self.plan.constants}
                units.append(_Compiled(steps, sources, fixed, outputs, self.threads))
            else:
                means = self.plan.constants, self._pool, self.threads, self._bytes_per_value
                units.append(_Interpreted(steps, outputs, *means))
        return units

    def _needed(self, wanted: Sequence[str]) -> list[Step]:
        """The plan's steps without those that nothing wanted depends on."""
        names, steps = {*wanted}, []
        for step in reversed(self.plan.steps):
            if step.name in names:
                names.update(step.inputs)
                steps.append(step)
        return steps[::-1]


@dataclass(frozen=True)
class _Call:
    """Units in order, names of what is wanted, shapes without the batch of what programs make of it.

    portion : images that all units do before the next ones begin; 0: all.
    """

    units: list["_Compiled | _Interpreted"]
    wanted: list[str]
    compiled: dict[str, Shape]
    portion: int


class _Compiled:
    """Steps that one program executes."""

    def __init__(
        self,
        steps: Sequence[Step],
        sources: Mapping[str, Shape],
        constants: Mapping[str, np.ndarray],
        outputs: tuple[str, ...],
        threads: int,
    ) -> None:
        nodes = [step.node for step in steps if step.node]
        self.outputs = outputs
        self._program = Program(nodes, sources, outputs, threads, constants)

    def run(self, values: Values, places: Mapping[str, np.ndarray]) -> None:
        """Add the outputs to `values`: in `places`, where there is one."""
        count = len(values[self._program.sources[0]])
        shapes = self._program.shapes
        results = {
            name: places[name] if name in places else np.empty((count, *shapes[name][1:]), np.int8)
            for name in self.outputs
        }
        self._program.run_into(values, results)
        values |= results


class _Interpreted:
    """Steps of Python functions, for blocks of images at the same time."""

    def __init__(
        self,
        steps: Sequence[Step],
        outputs: tuple[str, ...],
        constants: Collection[str],
        pool: ThreadPoolExecutor,
        threads: int,
        bytes_per_value: int,
    ) -> None:
        self.outputs = outputs
        self._steps, self._pool, self._threads = steps, pool, threads
        largest = max((math.prod(step.shape[1:]) for step in steps), default=1)
        self._block = max(1, min(LARGEST_BLOCK, CACHE_BYTES // max(1, 2 * largest * bytes_per_value)))
        self._multiplies = any(step.multiplies for step in steps)
        self._integer = {step.name for step in steps if step.integer}
        produced = {step.name for step in steps}
        given = {name: None for step in steps for name in step.inputs if name not in produced}
        self._constants = [name for name in given if name in constants]
        self._batched = [name for name in given if name not in constants]
        self._local = threading.local()

    def run(self, values: Values, places: Mapping[str, np.ndarray]) -> None:
        """Add the outputs to `values`."""
        count = len(values[self._batched[0]])
        size = max(1, min(self._block, math.ceil(count / self._threads)))
        ranges = [slice(start, min(start + size, count)) for start in range(0, count, size)] or [slice(0, 0)]
        results: Values = {}
        lock = threading.Lock()

        def block(part: slice) -> None:
            inside = {name: values[name] for name in self._constants}
            inside |= {name: values[name][part] for name in self._batched}
            self._execute(inside)
            with lock:
                for name in self.outputs:
                    if name not in results:
                        dtype = np.int8 if name in self._integer else inside[name].dtype
                        results[name] = np.empty((count, *inside[name].shape[1:]), dtype)
            for name in self.outputs:
                np.copyto(results[name][part], inside[name], casting="unsafe")

        # one matrix product per worker: BLAS threads on top would only get in each other's way
        with _blas().limit(limits=1, user_api="blas") if self._multiplies else nullcontext():
            if len(ranges) == 1:
                block(ranges[0])
            else:
                list(self._pool.map(block, ranges))
        values |= results

    def _execute(self, values: Values) -> None:
        workspace = getattr(self._local, "workspace", None)
        if workspace is None:
            workspace = self._local.workspace = Workspace()
        for step in self._steps:
            values[step.name] = step.function([values[name] for name in step.inputs], workspace)
