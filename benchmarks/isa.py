"""Native compiler and instruction simulator: seconds to compile and check, images per second.

    python benchmarks/isa.py quantized_model.h5 [--size B4096] [--images 256] [--repeats 3] [--quick]

Compiles the model (with its own verification), then runs random images through the machine
code and through the emulator, in turns. Exit status 1 if the two differ or a goal is missed.
Without a model (--quick) a random network of two layers is used.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import subject
from measuring import Goals, medians, parser_of, table

GOAL_COMPILE = 20.0
"""Seconds to compile, check and verify a small network."""
GOAL_100_IMAGES = 30.0
"""Seconds for 100 images of a small network."""


def seconds(function):
    """(result, wall-clock seconds) of a call."""
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def quantized_network(path):
    """The model at `path`, or a random one for None."""
    from dpuflow.network.quantized_file import read_quantized
    from dpuflow.quantize.reference import quantize
    from dpuflow.tfgraph.graph_reader import read_network

    if path:
        return read_quantized(path)
    with tempfile.TemporaryDirectory() as folder:
        frozen = Path(folder) / "random.pb"
        subject.random_frozen_graph(frozen)
        return quantize(read_network(frozen), subject.random_images(8)[0], {"diagnosis": False})[0]


def main():
    """Measure and print the section; returns the exit status."""
    parser = parser_of(__doc__, repeats=3)
    parser.add_argument("model", metavar="quantized_model.h5", nargs="?")
    parser.add_argument("--size", default="B4096", help="DPUCZDX8G size, B512 to B4096")
    parser.add_argument("--images", type=int, default=256)
    options = parser.parse_args()
    if options.quick:
        options.images, options.repeats = 4, 1
    elif not options.model:
        parser.error("give a quantized_model.h5, or --quick")

    from dpuflow.device.targets import get_target
    from dpuflow.dpuczdx8g.isa.program import read_programs
    from dpuflow.dpuczdx8g.isa.runner import IsaRunner
    from dpuflow.dpuczdx8g.isa.simulator import Simulator
    from dpuflow.dpuczdx8g.native.report import compile_native
    from dpuflow.emulator import Emulator

    quantized = quantized_network(options.model)
    target = get_target(f"DPUCZDX8G_ISA1_{options.size}")
    compiled, compile_seconds = seconds(lambda: compile_native(quantized, target))
    programs = read_programs(compiled.graph)
    _, check_seconds = seconds(lambda: [Simulator(program) for program in programs])
    runner, emulator = IsaRunner(compiled.graph), Emulator(compiled.graph)
    shape = tuple(emulator.input.tensor.shape[1:])
    batch = np.random.default_rng(0).integers(-128, 128, (options.images, *shape), np.int8)
    equal = bool(np.array_equal(runner.run(batch), emulator.run(batch)))
    ways = {"machine code": lambda: runner.run(batch), "emulator": lambda: emulator.run(batch)}
    taken = medians(ways, options.repeats)

    print("## Native compiler and instruction simulator\n")
    rows = [(name, f"{options.images / value:,.0f}") for name, value in taken.items()]
    print(table((f"{quantized.network.name} on {options.size}", "images/s"), rows))
    rows = [
        (
            program["name"],
            f"{program['code_bytes']:,}",
            sum(program["instructions"].values()),
            f"{program['estimate']['cycles']:,}",
            f"{program['estimate']['sequential']:,}",
        )
        for program in compiled.report["programs"]
    ]
    print(table(("program", "bytes", "instructions", "cycles (estimate)", "without overlap"), rows))
    print(
        f"{options.images} random images, median of {options.repeats} rounds in turns after a warm-up; "
        f"compiled and verified in {compile_seconds:.2f} s, checked alone in {check_seconds:.2f} s.\n"
    )
    goals = Goals(not options.quick)
    hundred = taken["machine code"] * 100 / options.images
    goals.add(
        f"compiled and verified in {compile_seconds:.1f} s (goal {GOAL_COMPILE:.0f})",
        compile_seconds <= GOAL_COMPILE,
    )
    goals.add(
        f"100 images in {hundred:.1f} s on the simulator (goal {GOAL_100_IMAGES:.0f})",
        hundred <= GOAL_100_IMAGES,
    )
    goals.add("machine code and emulator give equal bytes", equal)
    return max(goals.finish(), int(not equal))


if __name__ == "__main__":
    sys.exit(main())
