"""One network through every stage, in a process of its own: each stage's seconds and peak memory.

    python -m benchmarks.networks.stages NAME

prints a JSON object per line: {"stage", "seconds", "mebibytes", ...}; the last may be {"failed": why}.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.networks.catalogue import CATALOGUE
from benchmarks.networks.images import SCALING, pictures
from dpuflow.base.errors import UserError
from dpuflow.compiler.target_check import check
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.native import report as native_report
from dpuflow.emulator import Emulator
from dpuflow.quantize.reference import quantize

TARGET = "kv260"
SETTINGS = {"calibration": {"images": 4}, "diagnosis": False, "fast_finetune": False}
IMAGES = 4


def peak_from_here():
    """Forget the process's peak of resident memory (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak():
    """Greatest resident memory since `peak_from_here`, MiB."""
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) >> 10


class Stages:
    """Prints what each stage takes."""

    def run(self, stage, function, describe=lambda result: {}):
        """The function's result."""
        peak_from_here()
        start = time.perf_counter()
        result = function()
        seconds = time.perf_counter() - start
        self.say(stage=stage, seconds=round(seconds, 2), mebibytes=peak(), **describe(result))
        return result

    def say(self, **facts):
        """One line."""
        print(json.dumps(facts), flush=True)


def through(name):
    """Run one network of the catalogue; prints its stages."""
    stages = Stages()
    with tempfile.TemporaryDirectory(prefix="dpuflow-networks-") as folder:
        network = stages.run("read", lambda: CATALOGUE[name].network(Path(folder)), read_facts)
        images = pictures(network.input.shape, SETTINGS["calibration"]["images"])
        quantized, _ = stages.run("quantize", lambda: quantize(network, images, SETTINGS, SCALING))
    target = get_target(TARGET)
    verify, taken = native_report.verify, []

    def timed(*arguments):
        start = time.perf_counter()
        record = verify(*arguments)
        taken.append(time.perf_counter() - start)
        return record

    native_report.verify = timed
    left = [finding.layer for finding in check(quantized, target)]
    compiled = stages.run(
        "compile and verify",
        lambda: native_report.compile_native(quantized, target, on_cpu="allow", calibration=images),
        lambda made: {
            "verify_seconds": round(sum(taken), 2),
            "latency_ms": made.report["estimate"]["machine_code"]["latency_us"] / 1e3,
            "instructions": sum(sum(p["instructions"].values()) for p in made.report["programs"]),
            "on_cpu": sorted(set(left)),
        },
    )
    emulator = Emulator(compiled.graph)
    batch = emulator.quantize_input(pictures(network.input.shape, IMAGES))
    stages.run("emulate", lambda: emulator.run(batch), lambda result: {"images": IMAGES})


def read_facts(network):
    """Size of the input, parameters, layers."""
    arrays = (a for layer in network.layers for a in (layer.weights, layer.bias) if a is not None)
    parameters = sum(int(np.asarray(a).size) for a in arrays)
    return {
        "input": list(network.input.shape),
        "parameters": parameters,
        "layers": len(network.layers),
    }


def main():
    """Exit status 0 when the network passed every stage."""
    try:
        through(sys.argv[1])
    except UserError as error:
        Stages().say(failed=" ".join(str(error).split())[:600])
        return 1
    except Exception as error:
        Stages().say(failed=f"{type(error).__name__}: {' '.join(str(error).split())[:600]}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
