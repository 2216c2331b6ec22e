"""`vart.Runner` of the virtual board.

Follows the published source of the runtime (Vitis AI 3.5): one call of a runner at a
time, a job is a pair of numbers, tensors go by the model's order. What the real one
does not check and then reads beyond a buffer is an error here.
"""

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dpuflow.board.dump import dump_name
from dpuflow.virtual_board import device
from dpuflow.virtual_board.xir_api import Subgraph, Tensor

FORMATS = {np.dtype(np.int8): "xint8", np.dtype(np.int16): "xint16", np.dtype(np.float32): "float32"}
"""Element types that the binding takes -> type of a tensor."""
IN_DDR = 1
"""Attribute `location` of a tensor that lies in memory; only those can be dumped (0: on the chip)."""


class Runner:
    """Executes one subgraph; made by `create_runner`."""

    def __init__(self, subgraph: Subgraph) -> None:
        self._subgraph = subgraph
        graph = subgraph._graph
        from dpuflow.emulator import Emulator  # here, so that asking the board what it is stays quick

        # one thread: an application runs several runners at a time, like the cores of a board
        self._emulator = Emulator(graph, threads=1, subgraphs=[subgraph.get_name()])
        part = self._emulator.part(subgraph.get_name())
        self._name = part.name
        # the runtime's order is by name, not that of the upload and download ops
        self._input_ops, self._output_ops = (
            sorted(ops, key=lambda op: op.tensor.name) for ops in (part.inputs, part.outputs)
        )
        batch = device.batch()
        self._inputs = [Tensor(op, graph, batch) for op in self._input_ops]
        self._outputs = [Tensor(op, graph, batch) for op in self._output_ops]
        self._busy = threading.Lock()
        self._jobs: set[int] = set()
        self._next = 1

    @staticmethod
    def create_runner(subgraph: Subgraph, mode: str = "") -> "Runner":
        """A Runner of a compiled subgraph; mode is a key of its attribute `runner` ("run", "sim", "ref")."""
        if not isinstance(subgraph, Subgraph) or not isinstance(mode, str):
            raise TypeError("create_runner(): incompatible function arguments, expected (xir.Subgraph, str)")
        name = subgraph.get_name()
        if not subgraph.has_attr("runner"):
            raise RuntimeError(
                f"[VART_RUNNER_CONSTRUCTION_FAIL] subgraph {name} has no attribute `runner`; is it compiled?"
            )
        if mode not in subgraph.get_attr("runner"):
            raise RuntimeError(
                f"[VART_RUNNER_CONSTRUCTION_FAIL] subgraph {name} has no runner for mode {mode!r}"
            )
        return Runner(subgraph)

    def get_input_tensors(self) -> list[Tensor]:
        """Tensors that `execute_async` takes, in order."""
        return list(self._inputs)

    def get_output_tensors(self) -> list[Tensor]:
        """Tensors that `execute_async` fills, in order."""
        return list(self._outputs)

    def execute_async(
        self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray], enable_dynamic_array: bool = False
    ) -> tuple[int, int]:
        """Run once: lists of C-contiguous arrays of the tensors' sizes; returns the job for `wait`.

        The work is done when this returns, as it is on an edge board.
        """
        if enable_dynamic_array:
            raise RuntimeError("the virtual board has no dynamic arrays; neither has a DPUCZDX8G")
        self._check_fingerprint()
        given = _arrays("inputs", inputs, self._inputs)
        taken = _arrays("outputs", outputs, self._outputs)
        if not self._busy.acquire(blocking=False):
            raise RuntimeError(
                "[VART_SIZE_MISMATCH] this runner is busy; give every thread a runner of its own"
            )
        try:
            self._run(given, taken)
            job = self._next
            self._next += 1
            self._jobs.add(job)
        finally:
            self._busy.release()
        return job, 0

    def wait(self, job_id: tuple[int, int]) -> int:
        """Wait for a job; 0 when it has succeeded."""
        if not isinstance(job_id, tuple) or len(job_id) != 2:
            raise TypeError("wait(): incompatible function arguments, expected what execute_async returned")
        if job_id[0] not in self._jobs:
            raise RuntimeError(f"job {job_id[0]} is unknown to this runner, or has been waited for")
        self._jobs.remove(job_id[0])
        return 0

    def _check_fingerprint(self):
        if os.environ.get("XLNX_ENABLE_FINGERPRINT_CHECK", "1") == "0":
            return
        attribute = "dpu_fingerprint"
        model = self._subgraph.get_attr(attribute) if self._subgraph.has_attr(attribute) else 0
        board = device.fingerprint()
        if model and board and model != board:  # 0 on either side: not checked
            raise RuntimeError(
                f"fingerprint check failure: the model's is {model:#x}, the DPU's is {board:#x}"
            )

    def _run(self, given, taken):
        dump = os.environ.get("XLNX_ENABLE_DUMP", "0") != "0"
        feed = {
            op.name: array.reshape(tensor.dims)
            for op, tensor, array in zip(self._input_ops, self._inputs, given, strict=True)
        }
        results = self._emulator.run_subgraph(self._name, feed, dump=dump)
        for op, array in zip(self._output_ops, taken, strict=True):
            array[...] = results[op.name].reshape(array.shape)
        if dump:
            self._dump(feed, results)

    def _dump(self, feed, results):
        """Write tensors as the runtime does: dump/SUBGRAPH/{input,internal,output}/ENGINE.TENSOR.bin."""
        graph, ends = self._subgraph._graph, {op.name for op in self._output_ops}
        folder = Path("dump") / dump_name(self._name)
        for kind, tensors in (("input", feed), ("internal", results)):
            for name, array in tensors.items():
                if graph.op(name).tensor.attrs.get("location", IN_DDR) != IN_DDR:
                    continue
                place = folder / ("output" if kind == "internal" and name in ends else kind)
                place.mkdir(parents=True, exist_ok=True)
                for engine, image in enumerate(array):
                    path = place / f"{engine}.{dump_name(graph.op(name).tensor.name)}.bin"
                    path.write_bytes(np.ascontiguousarray(image).tobytes())

    def __repr__(self) -> str:
        return f"vart::Runner@{id(self):#x} ({device.VERSION})"


def _arrays(what, buffers, tensors):
    """The buffers as arrays after all checks."""
    if not isinstance(buffers, list | tuple):
        raise TypeError(f"execute_async(): incompatible function arguments, {what} must be a list of buffers")
    if len(buffers) != len(tensors):
        raise RuntimeError(f"[VART_SIZE_MISMATCH] {len(tensors)} {what} expected, got {len(buffers)}")
    arrays = []
    for buffer, tensor in zip(buffers, tensors, strict=True):
        if not isinstance(buffer, np.ndarray):
            raise TypeError(f"execute_async(): incompatible function arguments, {what} must be NumPy arrays")
        if buffer.dtype not in FORMATS:
            raise RuntimeError(f"unsupported data type {buffer.dtype} for tensor {tensor.name}")
        if FORMATS[buffer.dtype] != tensor.dtype:
            raise RuntimeError(
                f"tensor {tensor.name} is {tensor.dtype}, the buffer {buffer.dtype}; "
                "the virtual board does not convert"
            )
        if not buffer.flags.writeable:
            raise ValueError("buffer source array is read-only")
        if not buffer.flags.c_contiguous:
            raise RuntimeError(
                f"the buffer of tensor {tensor.name} is not contiguous; a board reads it as if it were"
            )
        if buffer.size != tensor.get_element_num():
            raise RuntimeError(
                f"[VART_SIZE_MISMATCH] tensor {tensor.name} has dims {tensor.dims}, the buffer "
                f"{list(buffer.shape)}; a board would read or write beyond it"
            )
        arrays.append(buffer)
    return arrays
