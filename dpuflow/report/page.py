"""Render the templates: one self-contained HTML file, or Markdown."""

import functools
import json
from typing import Any

import jinja2
from markupsafe import Markup

from dpuflow.report import wording


@functools.cache
def environment() -> jinja2.Environment:
    """Jinja2 environment of the report's templates; autoescapes everything but Markdown."""
    loader = jinja2.PackageLoader("dpuflow.report", "templates")
    env = jinja2.Environment(
        loader=loader,
        autoescape=lambda name: not (name or "").endswith(".md.j2"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    env.filters |= {
        "percent": wording.percent,
        "interval": wording.interval,
        "points": wording.points,
        "count": wording.count,
        "size": wording.size,
        "operations": wording.operations,
        "duration": wording.duration,
        "seconds": wording.seconds,
        "real": wording.real,
        "p_value": wording.p_value,
        "title_of": title_of,
        "fact_name": wording.fact_name,
        "fraction": wording.fraction,
        "bare": lambda value: "" if value is None else value,
        # "<" cannot end the script element that holds it
        "embedded_json": lambda value: Markup(json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")),
        "pretty_json": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
    }
    env.globals["fact_value"] = wording.fact_value
    env.globals["file"] = lambda name: Markup(loader.get_source(env, name)[0])
    return env


def render(template: str, **values: Any) -> str:
    """Text of a template."""
    return environment().get_template(template).render(**values)


def title_of(key: str) -> str:
    """A JSON key as a heading: "latency_us" -> "latency (µs)", "fix_point" -> "fix point"."""
    for ending, unit in UNITS.items():
        if key.endswith(ending) and key != ending.strip("_"):
            return f"{key[: -len(ending)].replace('_', ' ')} ({unit})"
    return key.replace("_", " ")


UNITS = {
    "_us": "µs",
    "_ms": "ms",
    "_seconds": "s",
    "_s": "s",
    "_mhz": "MHz",
    "_hz": "Hz",
    "_fps": "frames/s",
    "_bytes": "bytes",
    "_gops": "GOP/s",
    "_db": "dB",
    "_percent": "%",
}
