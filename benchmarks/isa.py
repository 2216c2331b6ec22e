"""Native compiler and instruction simulator: seconds to compile and check, images per second.

    python benchmarks/isa.py quantized_model.h5 [--size B4096] [--images 256] [--rounds 3]

Compiles the model (with its own verification), then runs random images through the machine
code and through the emulator, in turns; the best round of each counts, because the machine
may be busy with other things. Exit status 1 if the two differ or a goal is missed.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

GOAL_COMPILE = 20.0
"""Seconds to compile, check and verify a small network."""
GOAL_100_IMAGES = 30.0
"""Seconds for 100 images of a small network."""


def seconds(function):
    """(result, wall-clock seconds) of a call."""
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="quantized_model.h5")
    parser.add_argument("--size", default="B4096", help="DPUCZDX8G size, B512 to B4096")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()

    from dpuflow.emulator import Emulator
    from dpuflow.isa.program import read_programs
    from dpuflow.isa.runner import IsaRunner
    from dpuflow.isa.simulator import Simulator
    from dpuflow.native.report import compile_native
    from dpuflow.quantized_file import read_quantized
    from dpuflow.targets import get_target

    quantized = read_quantized(arguments.model)
    target = get_target(f"DPUCZDX8G_ISA1_{arguments.size}")
    compiled, compile_seconds = seconds(lambda: compile_native(quantized, target))
    programs = read_programs(compiled.graph)
    _, check_seconds = seconds(lambda: [Simulator(program) for program in programs])
    runner, emulator = IsaRunner(compiled.graph), Emulator(compiled.graph)
    shape = tuple(emulator.input.tensor.shape[1:])
    batch = np.random.default_rng(0).integers(-128, 128, (arguments.images, *shape), np.int8)
    best = {}
    for _ in range(arguments.rounds):
        for name, run in (("machine code", runner.run), ("emulator", emulator.run)):
            result, taken = seconds(lambda run=run: run(batch))
            if name not in best or taken < best[name][1]:
                best[name] = (result, taken)
    equal = bool(np.array_equal(best["machine code"][0], best["emulator"][0]))
    print(f"{quantized.network.name} on {arguments.size}, {arguments.images} random images")
    print(f"compile and verify   {compile_seconds:8.2f} s")
    print(f"check alone          {check_seconds:8.2f} s")
    for name, (_, taken) in best.items():
        print(f"{name:<20} {arguments.images / taken:8.0f} images/s")
    for program in compiled.report["programs"]:
        estimate = program["estimate"]
        count = sum(program["instructions"].values())
        print(
            f"{program['name']}: {program['code_bytes']} bytes, {count} instructions;"
            f" estimated {estimate['cycles']} cycles, {estimate['sequential']} without overlap"
        )
    missed = not equal or compile_seconds > GOAL_COMPILE
    missed |= best["machine code"][1] * 100 / arguments.images > GOAL_100_IMAGES
    print("equal" if equal else "DIFFERENT", "- goals missed" if missed else "- goals met")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
