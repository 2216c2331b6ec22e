"""One stage of one network, in a process of its own as a job of the workflow is.

    python -m benchmarks.networks.stages STAGE NAME FOLDER

STAGE is one of `STAGES`, in that order, or "estimate" in place of the last two; FOLDER keeps what a stage
leaves to the next. Prints a JSON object per line: {"stage", "seconds", "mebibytes", ...} or {"failed": why}.
"""

import json
import resource
import sys
from pathlib import Path

import numpy as np

from benchmarks.networks.images import SCALING, pictures
from dpuflow.base.errors import UserError
from dpuflow.device.targets import get_target
from dpuflow.network.network_file import load_network, save_network
from dpuflow.network.quantized_file import read_quantized, write_quantized

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


def seconds():
    """Processor time of this process and of those that it waited for: what other work does not change."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def read(name, folder):
    """Make the network and read it as the chain does; size of its input, parameters, layers."""
    from benchmarks.networks.catalogue import CATALOGUE

    network = CATALOGUE[name].network(folder)
    save_network(folder / "network.h5", network)
    arrays = (a for layer in network.layers for a in (layer.weights, layer.bias) if a is not None)
    parameters = sum(int(np.asarray(a).size) for a in arrays)
    return {"input": list(network.input.shape), "parameters": parameters, "layers": len(network.layers)}


def quantize(name, folder):
    """The quantizer, on few pictures."""
    from dpuflow.quantize.reference import quantize

    networks = [load_network(folder / "network.h5")]
    images = pictures(networks[0].input.shape, SETTINGS["calibration"]["images"])
    quantized, _ = quantize(networks.pop(), images, SETTINGS, SCALING)  # nobody else holds its weights
    write_quantized(folder / "quantized.h5", quantized)
    return {}


def compile_and_verify(name, folder):
    """The native compiler, with the seconds of its verification and the layers left to the CPU."""
    from dpuflow.compiler.target_check import check
    from dpuflow.dpuczdx8g.native import report

    quantized, target = read_quantized(folder / "quantized.h5", floats=False), get_target(TARGET)
    images = pictures(quantized.network.input.shape, SETTINGS["calibration"]["images"])
    verify, taken = report.verify, []

    def timed(*arguments):
        start = seconds()
        record = verify(*arguments)
        taken.append(seconds() - start)
        return record

    report.verify = timed
    left = {finding.layer for finding in check(quantized, target)}
    compiled = report.compile_native(quantized, target, on_cpu="allow", calibration=images)
    compiled.graph.save(folder / "network.xmodel")
    return {
        "verify_seconds": round(sum(taken), 2),
        "latency_ms": compiled.report["estimate"]["machine_code"]["latency_us"] / 1e3,
        "instructions": sum(sum(p["instructions"].values()) for p in compiled.report["programs"]),
        "on_cpu": sorted(left),
    }


def emulate(name, folder):
    """The emulator, with the time of its calls alone."""
    from dpuflow.emulator import Emulator
    from dpuflow.xir.graph import Graph

    emulator = Emulator(Graph.load(folder / "network.xmodel"))
    batch = emulator.quantize_input(pictures(emulator.input.tensor.shape[1:], IMAGES))
    start = seconds()
    emulator.run(batch)
    return {"images": IMAGES, "run_seconds": round(seconds() - start, 3)}


def estimate(name, folder):
    """The machine code and how long it takes, as `compile_and_verify` has them, without the verification."""
    from dpuflow.dpuczdx8g.native import report

    report.verify = lambda *_: {}
    found = compile_and_verify(name, folder)
    return {key: found[key] for key in ESTIMATED}


STAGES = {"read": read, "quantize": quantize, "compile and verify": compile_and_verify, "emulate": emulate}
ESTIMATE_STAGES = {"read": read, "quantize": quantize, "estimate": estimate}
ESTIMATED = ("latency_ms", "instructions", "on_cpu")


def main():
    """Exit status 0 when the network passed the stage."""
    stage, name, folder = sys.argv[1:]
    peak_from_here()
    try:
        facts = {**STAGES, **ESTIMATE_STAGES}[stage](name, Path(folder))
    except UserError as error:
        facts = {"failed": " ".join(str(error).split())[:600]}
    except Exception as error:
        facts = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:600]}"}
    print(json.dumps({"stage": stage, "seconds": round(seconds(), 2), "mebibytes": peak(), **facts}))
    return int("failed" in facts)


if __name__ == "__main__":
    sys.exit(main())
