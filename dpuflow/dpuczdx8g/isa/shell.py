"""The shell `python -m dpuflow.isa`: list, assemble, check and picture machine code."""

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dpuflow.base.errors import UserError, about
from dpuflow.base.files import write_bytes
from dpuflow.dpuczdx8g.isa.assembly import format_program, read_listing
from dpuflow.dpuczdx8g.isa.code import decode, encode
from dpuflow.dpuczdx8g.isa.program import read_programs
from dpuflow.dpuczdx8g.isa.simulator import Simulator
from dpuflow.dpuczdx8g.isa.timeline import timeline
from dpuflow.dpuczdx8g.timing import TIMING
from dpuflow.xir import Graph

PICTURES = {".html": False, ".htm": False, ".svg": True}
"""What a timeline may be written to -> whether it is the picture alone."""


def listing(graph: Graph, source: Path | str) -> str:
    """Assembler text of every DPU subgraph of a graph."""
    lines = []
    for program in read_programs(graph, source):
        lines.append(f".subgraph {shlex.quote(program.name)}  # fingerprint {program.fingerprint:#x}")
        lines += format_program(decode(program.code, f"{source}: {program.name}"))
        lines.append("")
    return "\n".join(lines)


def disassemble(arguments: argparse.Namespace) -> None:
    """Print the listing of a file."""
    print(listing(Graph.load(arguments.file), arguments.file), end="")


def assemble(arguments: argparse.Namespace) -> None:
    """Listing -> machine code: into a copy of an xmodel, or as a raw file."""
    programs = read_listing(arguments.file)
    if not arguments.into:
        if len(programs) != 1:
            raise UserError(f"{arguments.file}: {len(programs)} programs; more than one needs --into XMODEL")
        write_bytes(arguments.output, encode(programs[0][1]))
        return
    graph = Graph.load(arguments.into)
    subgraphs = {subgraph.name: subgraph for subgraph in graph.subgraphs("DPU")}
    for name, instructions in programs:
        if name not in subgraphs:
            raise UserError(f"{arguments.into}: no DPU subgraph {name!r}, it has {', '.join(subgraphs)}")
        subgraphs[name].attrs["mc_code"] = encode(instructions)
    # not validated: the rest of the file is its compiler's business, custom ops included
    graph.save(arguments.output, check=False)


def check(arguments: argparse.Namespace) -> None:
    """Check every program of a file: addresses, banks, dependencies."""
    for program in read_programs(Graph.load(arguments.file), arguments.file):
        with about(arguments.file):
            simulator = Simulator(program)
        counts = Counter(step.instruction.name for step in simulator.steps)
        print(f"{program.name}: {simulator.machine.name}, {len(program.code)} bytes, no fault found")
        print("  " + ", ".join(f"{count} {name}" for name, count in sorted(counts.items())))


def draw_timeline(arguments: argparse.Namespace) -> None:
    """Write the page that shows the engines over time."""
    if not 0 < arguments.clock < float("inf"):
        raise UserError(f"--clock {arguments.clock:g}: expected a clock in MHz, greater than 0")
    source = Path(arguments.file)
    output = Path(arguments.output or source.with_suffix(".timeline.html"))
    if output.suffix not in PICTURES:
        raise UserError(f"--output {output}: expected a file of {', '.join(PICTURES)}")
    page = timeline(Graph.load(source), source, arguments.clock, picture=PICTURES[output.suffix])
    write_bytes(output, page.encode())
    print(output)


def main(words: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dpuflow.isa", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("disasm", help="print the machine code of an xmodel as assembler text")
    command.add_argument("file", metavar="FILE.xmodel")
    command.set_defaults(run=disassemble)
    command = commands.add_parser("asm", help="turn assembler text into machine code")
    command.add_argument("file", metavar="LISTING", help="file, or - for standard input")
    command.add_argument("output", metavar="OUTPUT", help="machine code, or an xmodel with --into")
    command.add_argument("--into", metavar="XMODEL", help="put the code into a copy of XMODEL")
    command.set_defaults(run=assemble)
    command = commands.add_parser("check", help="check addresses, banks and dependencies of an xmodel's code")
    command.add_argument("file", metavar="FILE.xmodel")
    command.set_defaults(run=check)
    command = commands.add_parser("timeline", help="picture the engines over time: where the cycles go")
    command.add_argument("file", metavar="FILE.xmodel")
    command.add_argument(
        "-o",
        "--output",
        metavar="PAGE",
        help=".html, or .svg for the picture alone; default: FILE.timeline.html",
    )
    clock = TIMING.clock_mhz
    command.add_argument("--clock", type=float, default=clock, help="MHz, default %(default)g")
    command.set_defaults(run=draw_timeline)
    arguments = parser.parse_args(words)
    try:
        arguments.run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stderr.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
