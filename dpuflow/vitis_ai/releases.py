"""The release matrix (`releases.yaml`) and what it says about a container, a tool, a target.

Sources: docs/reference/tutorial.md, "Compatibility", docs/reference/quantizers.md, targets.md; the tags
are those
of the published images as far as they could be looked up (docs/vitis-ai.md says which could not).
"""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from dpuflow.base.errors import UserError
from dpuflow.base.hints import did_you_mean
from dpuflow.device.targets import Target, load_targets

MATRIX_FILE = Path(__file__).with_name("releases.yaml")


@cache
def matrix() -> dict[str, Any]:
    """Content of releases.yaml."""
    return yaml.safe_load(MATRIX_FILE.read_text(encoding="utf-8"))


def tools(prefix: str) -> list[str]:
    """Names of the vendor's quantizers ("vai_q") or compilers ("vai_c")."""
    return [name for name in matrix()["tools"] if name.startswith(prefix)]


def release(name: str) -> dict[str, Any]:
    """Row of a release; UserError names the known ones."""
    rows = matrix()["releases"]
    if name not in rows:
        known = ", ".join(f'"{row}"' for row in rows)
        raise UserError(f"{name!r} is no known Vitis AI release; write one of {known} (quoted)")
    return rows[name]


def image(tool: str, release_name: str, images: Mapping[str, Mapping[str, str]] | None = None) -> str:
    """Container of a tool in a release.

    images : {release: {framework: image}} of the user, which comes first.
    """
    framework = matrix()["tools"][tool]["framework"]
    own = (images or {}).get(release_name, {}).get(framework)
    return own or release(release_name)["images"][framework]


def enter(tool: str) -> str:
    """Shell text that activates the tool's conda environment inside its container, or fails with a reason.

    The activation scripts of conda read unset variables, hence `set +u` around them. The host's
    PYTHONPATH, which container runtimes pass on, would put this project before the container's packages.
    """
    data = matrix()
    script = f"{data['root']}/conda/etc/profile.d/conda.sh"
    environment = data["environments"][data["tools"][tool]["framework"]]
    return (
        f"[ -r {script} ] || {{ echo 'error: {tool} runs in a container of Vitis AI: "
        f"call snakemake with --sdm apptainer' >&2; exit 1; }}; "
        f"unset PYTHONPATH; export PYTHONNOUSERSITE=1; "
        f"set +u; . {script}; conda activate {environment}; set -u"
    )


def arch_path(target: Target, release_name: str) -> str | None:
    """Path of the container's own arch.json for a Target, or None.

    It is taken only if the target is a published board with that board's published DPU: a board name
    alone does not say which DPU a home-made image holds.
    """
    board = target.board.name.upper() if target.board else None
    if board is None or board not in release(release_name)["arch"]:
        return None
    published = load_targets().get(board.lower())
    if published is None or published.dpu != target.dpu:
        return None
    return f"{matrix()['root']}/compiler/arch/{target.dpu_type}/{board}/arch.json"


def option_problems(tool: str, release_name: str, given: Mapping[str, Any]) -> Iterator[str]:
    """Sentences about options that a tool does not have in a release or values that it refuses."""
    table = matrix()["tools"][tool]["options"]
    order = list(matrix()["releases"])
    available = [name for name in table if _exists(table[name], release_name, order)]
    for name, value in given.items():
        if name not in table:
            yield f"{name}: unknown option of {tool}; {did_you_mean(name, available)}"
        elif name not in available:
            since = table[name]["since"]
            yield f"{name}: {tool} has this option from release {since} on, not in {release_name}"
        elif (expected := _refused(table[name], value)) is not None:
            yield f"{name}: {value!r}; {tool} expects {expected}"


def _exists(option, release_name, order):
    return order.index(release_name) >= order.index(option.get("since", order[0]))


def _refused(option, value):
    """What was expected, if `value` is not it."""
    if "values" in option:
        # True == 1 in Python, but the tools tell them apart
        if any(type(value) is type(allowed) and value == allowed for allowed in option["values"]):
            return None
        return "one of " + ", ".join(str(allowed).lower() for allowed in option["values"])
    if option["type"] == "count":
        return None if type(value) is int and value >= 1 else "a whole number of at least 1"
    return None if isinstance(value, str) and value else "a text"
