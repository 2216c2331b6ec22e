"""JSON schemas in YAML: loaded with the fragments beside them, and what breaks them in plain words."""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import yaml
from jsonschema import Draft202012Validator, ValidationError, validators
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from dpuflow.base.hints import did_you_mean, nearest

_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The C loader where PyYAML has it: every start of Snakemake, so every cluster job, reads the schemas."""

_TYPES = Draft202012Validator.TYPE_CHECKER


def _finite(_, value):
    try:
        return _TYPES.is_type(value, "number") and math.isfinite(value)
    except OverflowError:  # a whole number beyond float64
        return False


SchemaValidator = validators.extend(Draft202012Validator, type_checker=_TYPES.redefine("number", _finite))
"""Takes YAML's .inf and .nan for no numbers."""


def _items(validator, items, instance, schema):
    """The keyword `items`; a long list of plain values is tested in one sweep instead of item by item."""
    kind = items.get("type") if isinstance(items, dict) and len(items) == 1 else None
    if isinstance(instance, list) and isinstance(kind, str) and "prefixItems" not in schema:
        is_type = validator.TYPE_CHECKER.is_type
        if all(is_type(item, kind) for item in instance):
            return
    yield from Draft202012Validator.VALIDATORS["items"](validator, items, instance, schema)


RecordValidator = validators.extend(
    SchemaValidator,
    {"items": _items},
    type_checker=SchemaValidator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int),
)
"""For what programs write: 3.0 is no whole number, and long lists are tested at once."""


@cache
def load_schema(path: Path | str) -> tuple[dict[str, Any], Registry]:
    """(schema, registry): the schema file, and it with the fragments that it refers to, ready to use.

    Read here and not on demand: jsonschema forgets what it retrieved and would read it at each reference.
    """
    path = Path(path)
    found, waiting = {}, {path.name}
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = _read(path.parent / name)
            waiting |= _references(found[name], name)
    resources = {name: DRAFT202012.create_resource(content) for name, content in found.items()}
    return found[path.name], Registry().with_resources(resources.items()).crawl()


def _read(path):
    return yaml.load(path.read_text(encoding="utf-8"), _YAML)


def _references(node, base):
    """Names of the files that `$ref`s under `node` of the file `base` lead to."""
    if isinstance(node, list):
        return set().union(*(_references(value, base) for value in node))
    if not isinstance(node, dict):
        return set()
    found = _references(list(node.values()), base)
    reference = node.get("$ref")
    if isinstance(reference, str) and not reference.startswith("#"):
        found.add(urljoin(base, reference.partition("#")[0]))
    return found


def _shortened(message):
    """jsonschema's messages quote the whole value."""
    return message if len(message) <= 300 else f"{message[:150]} ... {message[-120:]}"


def key_text(path: Iterable[str | int]) -> str:
    """("runs", 0, "model") -> "runs[0].model"."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text or "top level"


def explain(
    error: ValidationError, wrong_type: Callable[[Any, Any], str] = lambda value, expected: ""
) -> Iterator[str]:
    """Sentences for one schema error: key, what was found, what is expected.

    wrong_type : (value, type or types expected) -> words to end the sentence about a wrong type.
    """
    where = key_text(error.absolute_path)
    schema: Any = error.schema
    expected: Any = error.validator_value
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        valid = list(schema.get("properties", {}))
        for name in sorted(set(map(str, error.instance)) - set(valid)):
            key = name if where == "top level" else f"{where}.{name}"
            yield f"{key}: unknown key; {did_you_mean(name, valid)}"
    elif error.validator in ("oneOf", "anyOf") and error.context:
        yield from explain(_meant(error), wrong_type)
    elif error.validator == "required":
        found: Any = error.instance
        missing = [k for k in expected if k not in found]
        yield f"{where}: misses the key{'s' if len(missing) > 1 else ''} {', '.join(missing)}"
    elif error.validator == "enum":
        valid = [str(value) for value in expected]
        hint = "".join(f"; did you mean {name}?" for name in nearest(error.instance, valid))
        yield f"{where}: {error.instance!r} is not one of {', '.join(valid)}{hint}"
    elif error.validator == "pattern" and expected.endswith("[A-Za-z0-9_]*$"):
        yield f"{where}: {error.instance!r} is no name; write letters, digits and _: {_name(error)}"
    elif error.validator == "type":
        yield f"{where}: {_shortened(error.message)}{wrong_type(error.instance, expected)}"
    elif error.validator == "not" and not expected:
        yield f"{where}: does not belong here"
    else:
        yield f"{where}: {_shortened(error.message)}"


def _name(error):
    """The nearest name to one that has other characters."""
    return re.sub(r"[^A-Za-z0-9_]", "_", error.instance).lstrip("_") or "mine"


def _meant(error):
    """Of the alternatives that failed, the error of the one that the value was meant to be.

    That is the alternative of the value's own type; of several the one that got furthest.
    """
    scalar = not isinstance(error.instance, dict | list)

    def rank(sub: ValidationError) -> tuple[bool, int]:
        wrong_type = sub.validator == "type" or (sub.validator == "enum" and not scalar)
        at_top = len(sub.absolute_path) == len(error.absolute_path)
        return (not (wrong_type and at_top), len(sub.absolute_path))

    return max(error.context, key=rank)
