"""A network as its parts in order: DPU subgraphs by the runtime, CPU subgraphs in NumPy.

Python 3.6 or later; part of a dpuflow bundle, next to app.py. meta.json says what the parts are: its
list `parts` holds the top-level subgraphs of the model in order of execution, with the names of the
values that each reads and makes, and for the CPU's the ops (cpu_ops.py).
"""

import time

import cpu_ops
import numpy as np
import vart
import xir
from board_info import AppError
from pixels import PixelTable


class Network:
    """The bundle's model: checked against meta.json, its subgraphs found, its CPU ops prepared."""

    def __init__(self, bundle):
        self.meta = bundle.meta
        self.graph = xir.Graph.deserialize(bundle.model)
        children = self.graph.get_root_subgraph().toposort_child_subgraph()
        found = [s for s in children if s.has_attr("device") and s.get_attr("device").upper() == "DPU"]
        told = [part["subgraph"] for part in self.meta["parts"] if part["device"] == "DPU"]
        if sorted(s.get_name() for s in found) != sorted(told):
            raise AppError(
                "the model's DPU subgraphs are {}, meta.json says {}; build the bundle again".format(
                    ", ".join(s.get_name() for s in found) or "none", ", ".join(told) or "none"
                )
            )
        self.subgraphs = {s.get_name(): s for s in found}
        self.pixels = PixelTable(self.meta["input"])
        self.parts = [part for part in self.meta["parts"] if part["device"] != "USER"]
        # every op of every part, before anything runs: one that is unknown is named here
        self.functions = [
            [(op, cpu_ops.prepare(op, bundle.parameters)) for op in part.get("ops", [])]
            for part in self.parts
        ]
        self.constants = [
            {name: bundle.parameters[key] for name, key in part.get("constants", {}).items()}
            for part in self.parts
        ]

    @property
    def fingerprints(self):
        """Set of the DPUs' fingerprints that the model was compiled for (0: not told)."""
        name = "dpu_fingerprint"
        return {s.get_attr(name) if s.has_attr(name) else 0 for s in self.subgraphs.values()}


class Session:
    """What one thread needs to run a network: a runner and buffers for each DPU subgraph."""

    def __init__(self, network, mode):
        self.network = network
        self.steps = [
            DpuPart(network.subgraphs[part["subgraph"]], part, mode)
            if part["device"] == "DPU"
            else CpuPart(part, functions, constants)
            for part, functions, constants in zip(  # noqa: B905 (Python 3.6)
                network.parts, network.functions, network.constants
            )
        ]
        self.at_once = min(step.at_once for step in self.steps if isinstance(step, DpuPart))

    def run(self, images, keep=None):
        """uint8 images, at most `at_once`, -> ({name: value of the network}, [seconds of each part]).

        keep : dict that takes every value that a CPU layer makes, by the name of its tensor.
        """
        told = self.network.meta["input"]
        pixels = self.network.pixels(images)
        values = {told["value"]: pixels.reshape([len(images)] + told["shape"])}
        seconds = []
        for step in self.steps:
            begin = time.perf_counter()
            step.run(values, keep)
            seconds.append(time.perf_counter() - begin)
        return values, seconds


class CpuPart:
    """A CPU subgraph."""

    def __init__(self, part, functions, constants):
        self.part, self.functions, self.constants = part, functions, constants

    def run(self, values, keep=None):
        """Add the part's values to `values`."""
        local = dict(self.constants)
        for op, function in self.functions:
            inputs = [local[name] if name in local else values[name] for name in op["inputs"]]
            local[op["name"]] = function(inputs)
            if keep is not None:
                keep[op["tensor"]] = local[op["name"]]
        for name in self.part["outputs"]:
            values[name] = local[name]


class DpuPart:
    """A DPU subgraph with a runner of its own."""

    def __init__(self, subgraph, part, mode):
        self.runner = vart.Runner.create_runner(subgraph, mode)
        self.name = part["subgraph"]
        # the runtime sorts tensors by name, so they are found by name and not by place
        self.inputs = self._ports("input", self.runner.get_input_tensors(), part["inputs"])
        self.outputs = self._ports("output", self.runner.get_output_tensors(), part["outputs"])
        self.at_once = min(buffer.shape[0] for _, buffer in self.inputs + self.outputs)

    def _ports(self, side, tensors, ports):
        """[(name of the value, buffer)] in the runtime's order."""
        if len(tensors) != len(ports):
            raise AppError(
                f"subgraph {self.name}: {len(tensors)} {side}s in the runtime, {len(ports)} in meta.json"
            )
        free, found = list(ports), []
        for tensor in tensors:
            fitting = [port for port in free if tensor.name in port["names"]]
            if not fitting and len(free) == 1 and len(tensors) == 1:
                fitting = free  # nothing to mix up; the checks below still apply
            if not fitting:
                raise AppError(
                    f"subgraph {self.name}: {side} {tensor.name} of the runtime is not in meta.json "
                    f"({', '.join(port['names'][0] for port in free)})"
                )
            port = fitting[0]
            free.remove(port)
            if list(tensor.dims[1:]) != port["shape"]:
                raise AppError(
                    f"subgraph {self.name}: {side} {tensor.name} is {list(tensor.dims[1:])} in the model, "
                    f"{port['shape']} in meta.json"
                )
            if tensor.get_attr("fix_point") != port["fix_point"]:
                raise AppError(
                    f"subgraph {self.name}: {side} {tensor.name} has fix_point "
                    f"{tensor.get_attr('fix_point')} in the model and {port['fix_point']} in meta.json"
                )
            found.append((port["value"], np.zeros(tuple(tensor.dims), dtype=np.int8, order="C")))
        return found

    def run(self, values, keep=None):
        """Add the subgraph's outputs to `values`; they are valid until the next call."""
        count = len(values[self.inputs[0][0]])
        for name, buffer in self.inputs:
            # fewer images than the buffer takes leave old ones in its rest; they are not read
            buffer[:count] = values[name]
        job = self.runner.execute_async(
            [buffer for _, buffer in self.inputs], [buffer for _, buffer in self.outputs]
        )
        self.runner.wait(job)
        for name, buffer in self.outputs:
            values[name] = buffer[:count]
