"""`config/README.md` from the schema: every key with its type, default and meaning.

``python -m dpuflow.workflow.config_docs config/config.schema.yaml > config/README.md``
"""

import sys
from pathlib import Path

from dpuflow.base.schemas import load_schema

HEAD = """\
# Configuration

Generated from `config.schema.yaml` by `make docs`; a test keeps it current.

`config.yaml` is the default. A second file given with `--configfile` (or `make run CONFIG=...`) is merged
over it: mappings key by key, lists as a whole. Entries under `datasets`, `models`, `quantizers`, `targets`
and `runners` are definitions by a name of your choice; `runs` says which of them are carried through the
chain. An unknown key, a wrong type or a name that no section defines stops `snakemake` before anything
runs, with the key and the nearest valid one.

`NAME` below stands for an entry's name, `[]` for each element of a list.
"""


def document(schema_path: Path | str) -> str:
    """The Markdown text for a schema file and the fragments that it refers to."""
    schema, registry = load_schema(schema_path)
    resolver = registry.resolver_with_root(registry.get_or_retrieve("config.schema.yaml").value)
    lines = [HEAD]
    recursive: set[str] = set()
    for key, section in schema["properties"].items():
        lines.append(f"## `{key}`\n\n{section['description']}\n")
        rows = list(_rows(section, key, resolver, set(), True, recursive))
        if rows:
            lines += ["| key | value | default | meaning |", "| --- | --- | --- | --- |", *rows, ""]
    return "\n".join(lines).rstrip() + "\n"


def _rows(schema, path, resolver, seen, top=False, recursive=frozenset()):
    """Table rows of a schema and of all below it; a recursive definition is shown once.

    seen : references on the way here; recursive : those that were found within themselves so far.
    """
    reference = schema.get("$ref")
    if reference:
        resolved = resolver.lookup(reference)
        merged = resolved.contents | {k: v for k, v in schema.items() if k != "$ref"}
        if reference in seen or reference in recursive:
            recursive.add(reference)
            yield _row(path, merged, f"as above ({reference.rpartition('/')[2]})")
            return
        yield from _rows(merged, path, resolved.resolver, seen | {reference}, top, recursive)
        return
    if not top:
        yield _row(path, schema, _value(schema, resolver))
    for key, child in schema.get("properties", {}).items():
        yield from _rows(child, f"{path}.{key}", resolver, seen, recursive=recursive)
    if isinstance(schema.get("additionalProperties"), dict):
        yield from _rows(
            schema["additionalProperties"], f"{path}.NAME", resolver, seen, top=True, recursive=recursive
        )
    if isinstance(schema.get("items"), dict):
        yield from _rows(schema["items"], f"{path}[]", resolver, seen, top=True, recursive=recursive)
    for choice in schema.get("allOf", ()):  # if one key has this value, then these keys exist
        if "then" in choice:
            yield from _rows(choice["then"], path, resolver, seen, top=True, recursive=recursive)
    for branch in (*schema.get("oneOf", ()), *schema.get("anyOf", ())):
        if branch.get("type") == "object" or "$ref" in branch:
            inner = resolver.lookup(branch["$ref"]).contents if "$ref" in branch else branch
            if inner.get("type") == "object":
                yield from _rows(branch, path, resolver, seen, top=True, recursive=recursive)


def _row(path, schema, value):
    default = schema.get("default")
    shown = "" if default is None else f"`{str(default).lower() if isinstance(default, bool) else default}`"
    meaning = " ".join(schema.get("description", "").split())
    return f"| `{path}` | {value} | {shown} | {meaning.replace('|', '&#124;')} |"


def _value(schema, resolver):
    """A type in words: "integer, at least 1", "one of a, b", ..."""
    if "$ref" in schema:
        return _value(resolver.lookup(schema["$ref"]).contents, resolver)
    if "enum" in schema:
        return "one of " + ", ".join(f"`{option}`" for option in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    branches = (*schema.get("oneOf", ()), *schema.get("anyOf", ()))
    if branches:
        return " or ".join(dict.fromkeys(_value(branch, resolver) for branch in branches))
    kind = schema.get("type", "any")
    kind = " or ".join(kind) if isinstance(kind, list) else kind
    kind = {"object": "mapping", "array": "list", "boolean": "true or false", "string": "text"}.get(
        kind, kind
    )
    bounds = [
        f"{word} {schema[key]}"
        for key, word in (
            ("minimum", "at least"),
            ("maximum", "at most"),
            ("exclusiveMinimum", "above"),
            ("exclusiveMaximum", "below"),
        )
        if key in schema
    ]
    if kind == "list" and isinstance(schema.get("items"), dict):
        return f"list of {_value(schema['items'], resolver)}"
    return ", ".join([kind, *bounds])


if __name__ == "__main__":
    print(document(Path(sys.argv[1])), end="")
