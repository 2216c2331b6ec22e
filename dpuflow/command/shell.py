"""The command line of `dpuflow`."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from dpuflow.base.errors import UserError
from dpuflow.base.files import write_text

DESCRIPTION = """\
dpuflow new PICTURES [MODEL]   write a configuration: a folder (or zip) of pictures and a model file do
dpuflow check MODEL            which layers run on the DPU, why others do not, what it costs, how fast it is
dpuflow compare RUN RUN        two finished runs: accuracy lost and gained, which pictures and how

All else is the workflow: snakemake all --configfile FILE. Compiled files: python -m dpuflow.xir and .isa."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 0, 1 after an error, 2 where a model does not fit."""
    options = _parser().parse_args(arguments)
    logging.getLogger("dpuflow").setLevel(logging.WARNING)
    try:
        return int(options.run(options))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser():
    parser = argparse.ArgumentParser(
        "dpuflow", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    new = commands.add_parser("new", help="write a configuration for pictures and a model file")
    new.add_argument("pictures", type=Path, help="folder or zip: CLASS/*.jpg, or train/ and test/ with such")
    new.add_argument("model", type=Path, nargs="?", help="model file; without one a network is trained")
    new.add_argument("-o", "--output", type=Path, default=Path("mine.yaml"), help="default: mine.yaml")
    new.add_argument("--force", action="store_true", help="write over a file that is there")
    new.set_defaults(run=_new)
    check = commands.add_parser("check", help="what a model file would be on a DPU, without data")
    check.add_argument("model", type=Path, help="ONNX, H5, .keras, .pb, SavedModel folder, .xmodel")
    check.add_argument("--json", action="store_true", help="for programs")
    check.set_defaults(run=_check)
    compare = commands.add_parser("compare", help="two finished runs, picture by picture")
    for name in ("first", "second"):
        compare.add_argument(name, type=Path, help="a run's folder, or the *_accuracy.json of a stage")
    compare.add_argument("--dataset", type=Path, metavar="FILE", help="default: dataset.h5 above the first")
    compare.add_argument("--rows", type=int, default=20, metavar="N", help="pictures listed; default: 20")
    compare.add_argument("--json", action="store_true", help="for programs, with every picture")
    compare.set_defaults(run=_compare)
    for command in (new, check):
        command.add_argument("--target", default="kv260", help="a board or a DPU; default: kv260")
        command.add_argument("--size", type=_size, metavar="HxW", help="where the model leaves it open")
    return parser


def _size(text):
    try:
        height, width = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected height x width, 224x224") from None
    if height < 1 or width < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected two numbers above 0")
    return height, width


def _new(options):
    from dpuflow.command.new import configuration, model_beside
    from dpuflow.device.targets import get_target

    if options.output.exists() and not options.force:
        raise UserError(f"{options.output}: is there already; -o names another file, --force writes over it")
    pictures = options.pictures.expanduser()
    if not pictures.exists():
        raise UserError(f"{pictures}: does not exist; expected a folder or zip with pictures")
    model = options.model or model_beside(pictures)
    text = configuration(pictures, model, get_target(options.target), options.target, options.size)
    write_text(options.output, text)
    print(text)
    command = f"snakemake all --cores 2 --configfile {options.output}"
    print(f"Written to {options.output}. Look at it, then: {command}")
    return 0


def _check(options):
    from dpuflow.command.check import checked, words
    from dpuflow.command.models import read_model
    from dpuflow.device.targets import get_target

    target = get_target(options.target)
    content = checked(read_model(options.model, options.size, weights=False), target)
    print(json.dumps(content, indent=2) if options.json else words(content))
    return 0 if content["fits"] else 2


def _compare(options):
    from dpuflow.command.compare import compared, words

    content = compared(options.first, options.second, options.dataset)
    print(json.dumps(content, indent=2) if options.json else words(content, max(0, options.rows)))
    return 0
