"""The user's own files: which keys of the configuration name them, and whether they are there.

A key whose value is a path has `path: file`, `folder` or `any` beside its type in the schema; nothing
else lists them. Snakemake takes old results for good when the file that they came from is gone, so
what the runs use is looked for each time that the configuration is read (`missing`).
"""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dpuflow.base.errors import UserError
from dpuflow.base.foreign_file import EXPECTED, problem
from dpuflow.base.hints import absent
from dpuflow.base.schemas import key_text, load_schema
from dpuflow.datasets.locate import expand, find_in_folder, named_paths, parts_of
from dpuflow.quantizer_search.requests import search_networks
from dpuflow.workflow.config import expand_runs


def path_values(
    config: Mapping[str, Any], schema_path: Path | str
) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    """(where, kind, value) of every path in the configuration: keys, "file", "folder" or "any", the text.

    Values that name no file (an image in a registry, "none") are left out.
    """
    schema, _ = load_schema(schema_path)
    yield from _walk(schema, config, (), schema)


def _walk(schema, value, where, root):
    if "$ref" in schema:
        if not schema["$ref"].startswith("#/"):
            return
        found = root
        for part in schema["$ref"][2:].split("/"):
            found = found[part]
        schema = found
    is_path = isinstance(value, str) and "path" in schema
    if is_path and value not in schema.get("no_path", ()) and "://" not in value:
        yield where, schema["path"], value
    for branch in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from _walk(branch, value, where, root)
    if isinstance(value, dict):
        rest = schema.get("additionalProperties")
        for key, child in value.items():
            below = schema.get("properties", {}).get(key, rest)
            if isinstance(below, dict):
                yield from _walk(below, child, (*where, key), root)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for index, child in enumerate(value):
            yield from _walk(schema["items"], child, (*where, index), root)


def used_entries(config: Mapping[str, Any]) -> dict[str, set[str]]:
    """{section: names} of the entries that `runs` and `quantizer_search` use, directly or by starts_from."""
    runs, searched = expand_runs(config), search_networks(config)
    models = {run.model.partition("-s")[0] for run in runs}
    models |= {model.partition("-s")[0] for _, model in searched}
    for name in sorted(models):
        start = config["models"][name].get("starts_from")
        while start is not None and start not in models:
            models.add(start)
            start = config["models"][start].get("starts_from")
    return {
        "datasets": {run.dataset for run in runs} | {dataset for dataset, _ in searched},
        "models": models,
        "runners": {run.runner for run in runs},
    }


def missing(
    config: Mapping[str, Any], schema_path: Path | str, made: Callable[[str], bool] = lambda path: False
) -> list[str]:
    """Messages about files and folders that used entries name and that are not there.

    made : whether a rule makes a path; what another job makes is no user's file. Entries that no run
    uses may name what is elsewhere.
    """
    used, messages = used_entries(config), []
    for where, kind, value in path_values(config, schema_path):
        section, name = where[0], where[1] if len(where) > 1 else None
        if section == "datasets" or (section in used and name not in used[section]):
            continue
        messages += _foreign(where, value) or _problem(key_text(where), kind, value, made)
    for name in sorted(used["datasets"]):
        messages += _missing_data(f"datasets.{name}.source", config["datasets"][name], made)
    return messages


def _foreign(where, value):
    """What a file or folder is that is there and is no model of the kind that its key says."""
    path = Path(os.path.expanduser(os.path.expandvars(value)))
    if where[-1] not in EXPECTED or not os.access(path, os.R_OK):
        return []  # what is missing `_problem` says
    found = problem(path, EXPECTED[where[-1]])
    return [f"{key_text(where)}: {value}: {found}"] if found else []


def _missing_data(key, entry, made):
    source = entry["source"]
    try:
        named = named_paths(source)
    except UserError as error:
        return [f"{key}: {error}"]
    found = []
    for name in named:
        found += _problem(f"{key}.{name}", "folder" if name == "folder" else "file", source[name], made)
    if "folder" in named and source["kind"] == "files" and not found:
        try:
            for part in parts_of("test" in entry):
                find_in_folder(named["folder"], part)
        except UserError as error:
            found.append(f"{key}.folder: {error}")
    return found


def _problem(key, kind, value, made):
    try:
        path = expand(value)
    except UserError as error:
        return [f"{key}: {error}"]
    if kind == "folder" and path.is_file():
        return [f"{key}: {value}: a file, expected a folder"]
    if kind == "file" and path.is_dir():
        return [f"{key}: {value}: a folder, expected a file"]
    if path.exists() or made(str(path)):
        return [] if not path.exists() or os.access(path, os.R_OK) else [f"{key}: {value}: permission denied"]
    return [f"{key}: {value}: {absent(path)}"]
