"""Can the configuration files of a command line be read? Asked by the profiles, before Snakemake reads them.

Snakemake calls a YAML error "not valid" without file and line, and shows a traceback for a missing file. Keys
that stand twice in one mapping are an error here: YAML keeps the last one and says nothing.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from dpuflow.base.errors import UserError
from dpuflow.base.hints import absent

OPTIONS = ("--configfile", "--configfiles")
DEFAULT = Path("config/config.yaml")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def check_command_line(words: Sequence[str]) -> None:
    """End the process with one line per fault of the configuration files that Snakemake's arguments name."""
    faults = []
    for path in [*([DEFAULT] if DEFAULT.exists() else []), *named_files(words)]:
        try:
            check_file(path)
        except UserError as error:
            faults.append(f"error: {error}")
    if faults:
        print("\n".join(faults), file=sys.stderr)
        sys.exit(1)


def named_files(words: Sequence[str]) -> list[Path]:
    """Paths behind --configfile, or an abbreviation of it: it takes all words up to the next option."""
    taking, found = False, []
    for word in words:
        name, equals, value = word.partition("=")
        if word.startswith("-"):
            taking = len(name) > len("--config") and any(option.startswith(name) for option in OPTIONS)
            if taking and equals:
                found.append(Path(value))
                taking = False
        elif taking:
            found.append(Path(word))
    return found


def check_file(path: Path) -> None:
    """UserError, with line and column, for a file that is missing, no YAML, no mapping or has a key twice."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        hint = "" if path.suffix else "; --configfile takes all words that follow: write targets before it"
        raise UserError(f"configuration file {path}: {absent(path)}{hint}") from None
    except OSError as error:
        raise UserError(f"configuration file {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: no text in UTF-8 (byte {error.start} is {error.object[error.start]:#x}); "
            "save it as UTF-8"
        ) from None
    try:
        found = json.loads(text)
    except ValueError:
        found = _mapping(path, text)
    if not isinstance(found, dict):
        what = "empty" if found is None else f"a {type(found).__name__} and no mapping"
        raise UserError(f"{path}: {what}; expected keys and values, such as `runs: [...]`")


def _mapping(path, text):
    try:
        tree = yaml.compose(text, _LOADER)
        if "__use_yte__" not in text:
            _refuse_repeated_keys(path, tree, set())
        return yaml.load(text, _LOADER)
    except yaml.MarkedYAMLError as error:
        raise UserError(_words(path, text, error)) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: no YAML ({' '.join(str(error).split())})") from None


def _words(path, text, error):
    mark = error.problem_mark or error.context_mark
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    words = f"{path}: line {mark.line + 1}, column {mark.column + 1}: no YAML: {error.problem}"
    if error.context:
        words += f" {error.context}"
        if error.context_mark and error.context_mark.line != mark.line:
            words += f" that begins in line {error.context_mark.line + 1}"
    if "\t" in line[: len(line) - len(line.lstrip())]:
        words += "; indent with spaces, not with tabs"
    return f"{words}\n  {line.rstrip()}\n  {' ' * mark.column}^" if line.strip() else words


def _refuse_repeated_keys(path, node, seen):
    if id(node) in seen or node is None:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        first: dict[Any, int] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in first:
                    raise UserError(
                        f"{path}: line {key.start_mark.line + 1}: the key {key.value} stands here a second "
                        f"time (before in line {first[key.value]}), which replaces the first; join them"
                    )
                first[key.value] = key.start_mark.line + 1
            _refuse_repeated_keys(path, value, seen)
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _refuse_repeated_keys(path, child, seen)
