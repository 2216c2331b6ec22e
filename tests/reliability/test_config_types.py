"""A value of the wrong type under any key of the configuration: one sentence that names the key."""

import copy
import datetime
import functools

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dpuflow.base.errors import UserError
from dpuflow.base.schemas import load_schema
from dpuflow.workflow import config as configuration
from dpuflow.workflow.config import check
from dpuflow.workflow.config_docs import document

from killed_jobs import REPO  # isort: skip

SCHEMA = REPO / "config/config.schema.yaml"
FULL = yaml.safe_load(
    (REPO / "tests/reliability/full_configuration.yaml").read_text().replace('"SHA"', f'"{"ab" * 32}"')
)

TYPES = {
    "null": st.none(),
    "boolean": st.booleans(),
    "integer": st.integers(-3, 10**20),
    "number": st.floats(-10, 10, allow_nan=False).filter(lambda x: x != int(x)),
    "string": st.text(max_size=4) | st.sampled_from(["", "1", "ten", "true", "{}", "\0", "a b", "🂡"]),
    "array": st.lists(st.none() | st.integers() | st.text(max_size=2) | st.just({}), max_size=2),
    "object": st.dictionaries(st.text(max_size=3) | st.integers(), st.none() | st.integers(), max_size=2),
    "no JSON": st.sampled_from([datetime.date(2024, 1, 1), b"bytes", float("inf")]),
}
"""JSON type -> values of it, and what YAML has beyond JSON."""


def paths(node, path=()):
    """Every place of a configuration, the outermost first."""
    if path:
        yield path
    children = node.items() if isinstance(node, dict) else enumerate(node if isinstance(node, list) else ())
    for key, child in children:
        yield from paths(child, (*path, key))


def text(path):
    """A place as messages name it: runs[0].model."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).removeprefix(".")


@functools.cache
def loaded():
    return load_schema(SCHEMA)


def alternatives(schema):
    """The schemas that a value may follow: references followed, anyOf, oneOf and if/then unfolded."""
    root, registry = loaded()
    if "$ref" in schema:
        reference = schema["$ref"]
        if reference.startswith("#/$defs/"):
            yield from alternatives(root["$defs"][reference.rpartition("/")[2]])
        else:
            yield from alternatives(registry.get_or_retrieve(reference).value.contents)
    yield schema
    for part in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from alternatives(part)
    for part in schema.get("allOf", ()):
        yield from alternatives(part.get("then", part))


def below(schemas, key):
    """Schemas of the value under `key`."""
    for schema in schemas:
        if isinstance(key, int):
            child = schema.get("items")
        else:
            child = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
        if isinstance(child, dict):
            yield from alternatives(child)


NAMES = {type(None): "null", bool: "boolean", int: "integer", str: "string"}


def allowed_types(path):
    """JSON types that a value at `path` may have, as far as the schema says; all of them if it does not."""
    schemas = list(alternatives(loaded()[0]))
    for key in path:
        schemas = list(below(schemas, key))
    found = set()
    for schema in schemas:
        kinds = schema.get("type", [])
        found.update([kinds] if isinstance(kinds, str) else kinds)
        values = [*schema.get("enum", ()), *(schema[key] for key in ["const"] if key in schema)]
        found.update(NAMES[type(value)] for value in values)
    found = found or set(TYPES)
    return found | {"integer"} if "number" in found else found


def with_value(path, value):
    config = copy.deepcopy(FULL)
    node = config
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return config


@pytest.fixture(autouse=True)
def schema_read_once(monkeypatch):
    """The schema is read from disk at each check, which is most of its time."""
    monkeypatch.setattr(configuration, "load_schema", lambda path: loaded())


def test_the_full_configuration_is_valid_and_has_every_key():
    check(FULL, SCHEMA)
    occurring = {key for path in paths(FULL) for key in path if isinstance(key, str)}
    for line in document(SCHEMA).splitlines():
        if line.startswith("| `"):
            key = line.split("`")[1].replace("[]", "").rpartition(".")[2]
            assert key in occurring or key == "NAME", f"full_configuration.yaml lacks {line.split('`')[1]}"


PLACES = [path for path in paths(FULL) if allowed_types(path) != set(TYPES)]
WRONG = [(path, kind) for path in PLACES for kind in sorted(set(TYPES) - allowed_types(path))]


@pytest.mark.fault(
    "configuration", f"a drawn value of a wrong type, {len(WRONG)} pairs of key and type", "message"
)
@settings(max_examples=300)
@given(st.sampled_from(WRONG), st.data())
def test_a_value_of_a_wrong_type_is_named_by_its_key(place, data):
    refuse(*place, data)


@pytest.mark.fault("configuration", "each key once with a value of each wrong type", "message")
def test_every_key_and_every_wrong_type():
    assert len(PLACES) > 150 and len(WRONG) > 800
    samples = {
        "null": None, "boolean": True, "integer": 7, "number": 1.5, "string": "x", "array": [[]],
        "object": {"x": {}}, "no JSON": datetime.date(2024, 1, 1),
    }  # fmt: skip
    for path, kind in WRONG:
        complaint(path, samples[kind])


def refuse(path, kind, data):
    complaint(path, data.draw(TYPES[kind]))


def complaint(path, value):
    """The one message about a wrong value; it names the key."""
    with pytest.raises(UserError) as caught:
        check(with_value(path, value), SCHEMA)
    message = str(caught.value)
    assert message.startswith("config: ") and text(path) in message, message
    assert "\n" not in message, message
    assert len(message) < 600, message
