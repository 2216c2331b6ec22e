"""`python -m dpuflow.xir`: show, compare and draw xmodel files."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dpuflow.base.errors import UserError
from dpuflow.base.files import write_text
from dpuflow.xir.graph import Graph
from dpuflow.xir.schema import proto_text


def show(arguments: argparse.Namespace) -> int:
    """Print ops, subgraphs and problems; an ill-formed file is shown too, as far as it parses."""
    from dpuflow.xir.describe import describe

    print(describe(Graph.load(arguments.file, check=False)), end="")
    return 0


def diff(arguments: argparse.Namespace) -> int:
    """Print differences; status 1 if there are any, as diff(1) does."""
    from dpuflow.xir.difference import differences

    lines = differences(Graph.load(arguments.file), Graph.load(arguments.other))
    print("".join(f"{line}\n" for line in lines), end="")
    return 1 if lines else 0


def svg(arguments: argparse.Namespace) -> int:
    """Write a picture beside the file, or where --output says ("-": standard output)."""
    from dpuflow.xir.svg import draw

    text = draw(Graph.load(arguments.file))
    if arguments.output == "-":
        print(text, end="")
        return 0
    output = Path(arguments.output or Path(arguments.file).with_suffix(".svg"))
    write_text(output, text)
    print(output)
    return 0


def proto(arguments: argparse.Namespace) -> int:
    """Print the schema of xmodel files in protobuf's language."""
    print(proto_text(), end="")
    return 0


def main(words: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0, 1 (`diff` found differences) or 2 (error)."""
    parser = argparse.ArgumentParser(prog="python -m dpuflow.xir", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("show", help="ops with shapes and fix_points, subgraph tree, problems")
    command.add_argument("file", metavar="FILE.xmodel")
    command.set_defaults(run=show)
    command = commands.add_parser("diff", help="what differs between two files")
    command.add_argument("file", metavar="OLD.xmodel")
    command.add_argument("other", metavar="NEW.xmodel")
    command.set_defaults(run=diff)
    command = commands.add_parser("svg", help="picture of the graph")
    command.add_argument("file", metavar="FILE.xmodel")
    command.add_argument("-o", "--output", metavar="FILE.svg", help="- for standard output")
    command.set_defaults(run=svg)
    command = commands.add_parser("proto", help="the file format's protobuf schema")
    command.set_defaults(run=proto)
    arguments = parser.parse_args(words)
    try:
        return arguments.run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stderr.close()
        return 0


if __name__ == "__main__":
    sys.exit(main())
