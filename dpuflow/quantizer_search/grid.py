"""Grids of settings of the `reference` quantizer: lists multiply out."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from dpuflow.base.errors import UserError
from dpuflow.quantize.settings import DEFAULTS, SWITCHABLE, complete

DEFAULT_GRID: list[dict[str, Any]] = [
    {"compat": "vai_q", "equalization": [False, True]},
    {
        "method": ["non_overflow", "min_diffs"],
        "equalization": [False, True],
        "position_search": {"criterion": [None, "output_error"]},
        "fast_finetune": [False, True],
    },
]


def expand(grid: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every setting of a grid, in order, each once; UserError for one that the quantizer would refuse.

    grid : mapping like an entry of `quantizers` in which any value may be a list of values, or a
        list of such mappings, each multiplied out by itself.
    """
    found: dict[str, dict[str, Any]] = {}
    for setting in _combinations(grid):
        for key in ("tool", "diagnosis"):
            if key in setting:
                raise UserError(f"{key}: not a key of a grid, for it changes no answer; leave it out")
        found.setdefault(json.dumps(complete(setting)), setting)
    return list(found.values())


def _combinations(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for values in itertools.product(*(list(_combinations(inner)) for inner in value.values())):
            yield dict(zip(value, values, strict=True))
    elif isinstance(value, list):
        for element in value:
            yield from _combinations(element)
    else:
        yield value


def described(setting: Mapping[str, Any]) -> dict[str, str]:
    """{key: words} of a setting with its defaults, groups that can be off as one key."""
    words = {}
    for key, value in complete(setting).items():
        if key == "diagnosis":
            continue
        if key in SWITCHABLE:
            changed = {k: v for k, v in (value or {}).items() if v != DEFAULTS[key][k]}
            words[key] = _word(bool(value)) + "".join(f", {k} {_word(v)}" for k, v in changed.items())
        elif isinstance(value, dict):
            words |= {f"{key}.{name}": _word(inner) for name, inner in value.items()}
        else:
            words[key] = _word(value)
    return words


def _word(value: Any) -> str:
    if value is None:
        return "-"
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def varied(settings: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """[{key: words}] of the settings, only the keys in which they differ."""
    words = [described(setting) for setting in settings]
    keys = [key for key in words[0] if len({row[key] for row in words}) > 1]
    return [{key: row[key] for key in keys} for row in words]


def as_entry(setting: Mapping[str, Any], name: str = "searched") -> str:
    """YAML text of an entry of `quantizers` with this setting."""
    return yaml.safe_dump({"quantizers": {name: {"tool": "reference", **setting}}}, sort_keys=False)
