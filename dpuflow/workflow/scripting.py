"""How a script under `scripts/` runs: under Snakemake, or alone from a shell.

A script defines ``main(snakemake)`` and ends with ``run(main, globals())``. Alone it
takes dotted assignments instead of a rule, in the folder that holds `scripts/`::

    python -m scripts.freeze input.model=m.h5 output.graph=/tmp/f.pb params.tolerance=1e-5 ...

A user's mistake (UserError) ends in one line on the terminal and in the log, no
traceback, exit status 1; so do memory that runs out and a kill (`supervision`).
"""

import ast
import logging
import os
import sys
from collections.abc import Callable, ItemsView, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

import yaml

from dpuflow.base.errors import UserError
from dpuflow.base.progress import CLEAR, transient
from dpuflow.base.writing import WriteError, explained_writing, write_error
from dpuflow.workflow.supervision import killed, needs, peak_megabytes, supervise

log = logging.getLogger("dpuflow")

SHOWN = logging.INFO + 5
"""Level of a line that a terminal shows even if it is not the job's last: log.log(SHOWN, ...)."""
SECTIONS = ("input", "output", "params", "wildcards", "log", "resources")
USAGE = """\
usage: python -m scripts.{name} SECTION.KEY=VALUE ...
  SECTION is input, output, params, wildcards or resources; VALUE is YAML; log=FILE and threads=N go alone.
  keys this script reads: {keys}
"""


class Values(SimpleNamespace):
    """Named values like Snakemake's: attributes, `get`, and iteration over the values."""

    def get(self, key: str, default: Any = None) -> Any:
        """The value named `key`, else `default`."""
        return getattr(self, key, default)

    def __getitem__(self, index: int | str) -> Any:
        return list(vars(self).values())[index] if isinstance(index, int) else vars(self)[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(vars(self).values())

    def items(self) -> ItemsView[str, Any]:
        """(name, value) pairs."""
        return vars(self).items()


def parse_assignments(words: Sequence[str]) -> SimpleNamespace:
    """["input.a=x", "threads=2"] -> an object shaped like Snakemake's `snakemake`."""
    sections: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    threads = os.cpu_count() or 1
    for word in words:
        target, equals, text = word.partition("=")
        section, dot, key = target.partition(".")
        if not equals:
            raise UserError(f"{word}: expected SECTION.KEY=VALUE")
        value = yaml.safe_load(text) if section not in ("input", "output", "log") else text
        if target == "threads":
            threads = int(value)
        elif target == "log":
            sections["log"]["log"] = text
        elif section in sections and dot:
            sections[section][key] = value
        else:
            raise UserError(f"{word}: unknown section {section!r}, expected one of {', '.join(SECTIONS)}")
    return SimpleNamespace(threads=threads, **{name: Values(**given) for name, given in sections.items()})


def keys_read(script: Path | str) -> list[str]:
    """Which `snakemake.SECTION.KEY` a script's source reads, for its usage message."""
    tree = ast.parse(Path(script).read_text(encoding="utf-8"))
    keys = {
        f"{node.value.attr}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Attribute)
        and isinstance(node.value.value, ast.Name)
        and node.value.value.id == "snakemake"
        and node.attr not in ("get", "items")
    }
    return sorted(keys)


def log_accuracy(record: Mapping[str, Any]) -> None:
    """One line for the record of a stage (`accuracy.stages.stage_record`)."""
    if "accuracy" not in record:
        names = ", ".join(f"{name} {output['shape']}" for name, output in record["outputs"].items())
        log.info("%s: outputs %s of %d %s images", record["stage"], names, record["images"], record["split"])
        return
    low, high = record["interval95"]
    log.info(
        "%s: %d of %d %s images right, accuracy %.4f (95 %% interval %.4f to %.4f)%s",
        record["stage"],
        record["correct"],
        record["images"],
        record["split"],
        record["accuracy"],
        low,
        high,
        f", top-5 {record['top5']['accuracy']:.4f}" if "top5" in record else "",
    )


class ResultLine(logging.StreamHandler):
    """Shows of a job what it says last, when it ends; what it says before is in its log.

    In a terminal the lines before are shown as they come, each in place of the one before. Warnings and
    errors are always shown.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._last = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line of level INFO, show one of a higher level."""
        tty = self.stream.isatty()
        if record.levelno <= logging.INFO:
            self._last = self.format(record)
            if tty:
                transient(self._last.partition("\n")[0], self.stream)
            return
        if tty:
            self.stream.write(CLEAR)
        if record.levelno >= logging.ERROR:
            self._last = ""
        super().emit(record)

    def close(self) -> None:
        """Show the last line."""
        if self._last:
            tty = self.stream.isatty()
            self.stream.write((CLEAR if tty else "") + self._last + "\n")
            self.stream.flush()
            self._last = ""
        super().close()


def _set_up_logging(log_file, last_line_only):
    """Plain lines to the job's log file and to the terminal."""
    logging.raiseExceptions = False  # a log on a full disk is lost, the job's own error still shows
    terminal = ResultLine(sys.stderr) if last_line_only else logging.StreamHandler(sys.stderr)
    terminal.setLevel(logging.INFO)
    handlers: list[logging.Handler] = [terminal]
    if log_file:
        with explained_writing(log_file):
            Path(log_file).parent.mkdir(parents=True, exist_ok=True)
            handlers.append(logging.FileHandler(log_file, mode="w", encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers[:] = handlers
    log.setLevel(logging.DEBUG)  # the log file holds the progress, too
    log.propagate = False


def _stop(error):
    """End the process at once: HDF5 crashes when it closes a file after a write to it has failed."""
    log.error("error: %s", error)
    _leave(1)


def _leave(status):
    """End the process without taking apart what it has built, after what it has printed is out."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _from_command_line(script):
    """What the words after the script's name say; with none, or asked for help, its usage."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(USAGE.format(name=Path(script).stem, keys=", ".join(keys_read(script))), end="")
        sys.exit(0 if words else 2)
    try:
        return parse_assignments(words)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def run(main: Callable[[Any], object], namespace: Mapping[str, Any]) -> None:
    """Run `main` if the script is executed (by Snakemake or alone), not if it is imported."""
    snakemake = namespace.get("snakemake")
    alone = snakemake is None
    if snakemake is None:
        if namespace.get("__name__") != "__main__":
            return
        snakemake = _from_command_line(namespace["__file__"])
    try:
        _set_up_logging(next(iter(snakemake.log), None), last_line_only=not alone)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    job = getattr(snakemake, "rule", None) or Path(namespace["__file__"]).stem
    if namespace.get("__name__") == "__main__":
        supervise(lambda *facts: log.error("error: %s", killed(job, *facts)))
    _work(main, snakemake, job)
    if "tensorflow" in sys.modules:  # a million objects: half a second to a whole one for nothing
        _leave(0)


def _work(main, snakemake, job):
    """Call `main`; end the process with a message if it fails."""
    try:
        main(snakemake)
    except MemoryError as error:
        log.error("error: %s ran out of memory (%s). %s", job, error, needs(job, peak_megabytes()))
        _leave(1)
    except BrokenProcessPool:
        log.error("error: a process of %s was killed. %s", job, needs(job, peak_megabytes()))
        _leave(1)
    except WriteError as error:
        _stop(error)
    except UserError as error:
        log.error("error: %s", error)
        sys.exit(1)
    except AttributeError as error:
        if isinstance(error.obj, Values):
            log.error("error: this script also needs a value for %s (see --help)", error.name)
            sys.exit(2)
        log.exception("internal error")
        sys.exit(1)
    except Exception as error:
        explained = write_error(getattr(error, "filename", None) or "a file of this job", error)
        if explained:
            _stop(explained)
        log.exception("internal error (this is a defect of dpuflow, not of your data)")
        sys.exit(1)
