"""The shell `python -m dpuflow.isa`: list, assemble and check machine code."""

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dpuflow.base.errors import UserError, about
from dpuflow.dpuczdx8g.isa.assembly import format_program, read_listing
from dpuflow.dpuczdx8g.isa.code import decode, encode
from dpuflow.dpuczdx8g.isa.program import read_programs
from dpuflow.dpuczdx8g.isa.simulator import Simulator
from dpuflow.xir import Graph


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
        from dpuflow.base.files import write_bytes

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
