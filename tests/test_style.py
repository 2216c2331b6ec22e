"""The sources are clean: ruff, snakefmt, snakemake --lint; the pins and pictures are current."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dpuflow.workflow.rulegraph import draw

TOOLS = Path(sys.executable).parent


def run(repo, *command):
    environment = os.environ | {"PATH": f"{TOOLS}:{os.environ['PATH']}", "NO_COLOR": "1"}
    return subprocess.run(
        [TOOLS / command[0], *command[1:]], cwd=repo, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("snakefmt", "--check", "Snakefile", "rules"),
        ("mypy",),
    ],
    ids=["check", "format", "snakefmt", "types"],
)
def test_the_sources_are_formatted_and_clean(repo, command):
    result = run(repo, *command)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.rules
def test_snakemake_finds_nothing_to_mend(repo):
    result = run(repo, "snakemake", "--lint")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.rules
def test_the_picture_of_the_rules_is_current(repo):
    chart = run(repo, "snakemake", "--rulegraph", "mermaid-js").stdout
    picture = (repo / "docs/images/rulegraph.svg").read_text()
    assert draw(chart) == picture, "make rulegraph, then copy results/rulegraph.svg to docs/images/"


def test_environments_repeat_the_pins_of_the_requirements(repo):
    pins = re.findall(r"^([\w-]+==[\w.]+)$", (repo / "requirements.txt").read_text(), re.MULTILINE)
    environments = sorted((repo / "envs").glob("*.yaml"))
    assert environments
    for path in environments:
        repeated = re.findall(r"^ +- ([\w-]+==[\w.]+)$", path.read_text(), re.MULTILINE)
        assert repeated and not set(repeated) - set(pins), path.name


def test_every_rule_says_what_it_does_and_keeps_a_log(repo):
    for path in sorted((repo / "rules").glob("*.smk")):
        for rule in re.split(r"(?m)^(?=rule \w+:)", path.read_text())[1:]:
            name = rule.split(":", 1)[0]
            assert re.search(r'\n    message:\n        "[A-Z].*\."\n', rule), f"{path.name}: {name}: message"
            assert "\n    log:\n" in rule or "\n    script:\n" not in rule, f"{path.name}: {name}: log"


FOREIGN = "foreign"
"""Folder of dpuflow/ whose programs run on other Pythons (boards, the vendor's containers, the far end of
ssh), some of them too old for annotations as the package writes them."""


def test_public_functions_have_type_annotations(repo):
    package, missing = repo / "dpuflow", []
    for path in sorted(package.rglob("*.py")):
        if path.relative_to(package).parts[0] == FOREIGN:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
                continue
            given = node.args
            arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
            bare = [a for a in arguments if a and a.annotation is None and a.arg not in ("self", "cls")]
            if bare or node.returns is None:
                missing.append(f"{path.relative_to(repo)}:{node.lineno}: {node.name}")
    assert missing == []
