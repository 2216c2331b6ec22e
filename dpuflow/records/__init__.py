"""JSON artifacts: each kind has one schema in `schemas/`, and is written and read through it.

A schema is named by its file, so that a rule depends on the schemas that its script uses
(`workflow.code_closure`). Ours allow no key that they do not name.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

from dpuflow.base.errors import UserError
from dpuflow.base.files import json_text, read_json, write_text

FOLDER = Path(__file__).with_name("schemas")
COMMON = "common.schema.yaml"
"""What several schemas refer to; named here for `workflow.code_closure`."""

SHOWN = 3
"""Mistakes of a file that its error lists."""


def write_record(path: Path | str, schema: str, data: Any) -> None:
    """Write `data` as the JSON artifact that the schema file (`freeze.schema.yaml`) describes.

    ValueError, a defect of this program and not of the user, when it does not fit.
    """
    text = json_text(data)
    problems = mistakes(json.loads(text), schema)
    if problems:
        raise ValueError(f"{path} would break {schema}: {'; '.join(problems)}")
    write_text(path, text)


def read_record(path: Path | str, schema: str) -> Any:
    """Content of a JSON artifact; one UserError names the file and the keys that do not fit its schema."""
    data = read_json(path)
    problems = mistakes(data, schema)
    if problems:
        raise UserError(f"{path}: {'; '.join(problems)}; remove it and run again")
    return data


def mistakes(data: Any, schema: str) -> list[str]:
    """What is wrong with the content of a record, as sentences that name the key; [] if nothing is."""
    from dpuflow.base.schemas import explain

    # what does not belong here may only follow from another mistake
    errors = sorted(
        _validator(schema).iter_errors(data),
        key=lambda error: (error.validator == "not", [str(part) for part in error.absolute_path]),
    )
    found = list(dict.fromkeys(text for error in errors for text in explain(error)))
    return found[:SHOWN] + ([f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else [])


@cache
def _validator(schema):
    # jsonschema takes a tenth of a second to import: not for jobs that touch no record
    from dpuflow.base.schemas import RecordValidator, load_schema

    content, registry = load_schema(FOLDER / schema)
    return RecordValidator(content, registry=registry)
