"""Conda files of the rules: pinned as pip is, and complete for the scripts that run in them."""

import ast
import functools
import re
import sys

import pytest
import yaml

from dpuflow.workflow.code_closure import source_files

ENVIRONMENTS = ("tensorflow", "onnx", "test", "report", "dpuflow")
PACKAGE_OF = {"google": "protobuf", "yaml": "PyYAML", "jinja2": "Jinja2", "PIL": "pillow"}
OPTIONAL = {"kagglehub"}
BROUGHT_ALONG = {"markupsafe": "Jinja2"}
CONDA_OF_RULE = re.compile(r"^rule (\w+):\n(.*?)(?=^rule |\Z)", re.MULTILINE | re.DOTALL)


def pins(lines):
    """{package in lower case: version} of pinned requirements."""
    found = (line.partition("#")[0].strip() for line in lines)
    return {name.lower(): version for name, _, version in (line.partition("==") for line in found) if version}


def environment(repo, name):
    data = yaml.safe_load((repo / f"envs/{name}.yaml").read_text())
    pip = next(entry["pip"] for entry in data["dependencies"] if isinstance(entry, dict))
    return data, pip


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_pins_equal_those_of_pip(repo, name):
    required = pins((repo / "requirements.txt").read_text().splitlines())
    data, pip = environment(repo, name)
    own = pins(pip)
    assert len(own) == len(pip), "every package is pinned with =="
    assert {package: required.get(package) for package in own} == own
    assert "python=3.11" in data["dependencies"]


def test_every_environment_file_is_tested(repo):
    assert {path.stem for path in (repo / "envs").glob("*.yaml")} == set(ENVIRONMENTS)


@functools.cache
def imports(path):
    """Top-level modules that a file imports, lazily or not."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return {name for name in found if name not in sys.stdlib_module_names}


@functools.cache
def third_party(repo, script):
    """Packages that a script and the modules behind it import; programs for other Pythons run elsewhere."""
    files = [f"scripts/{script}", *source_files(f"scripts/{script}", repo)]
    here = (path for path in files if path.endswith(".py") and not path.startswith("dpuflow/foreign/"))
    found = set().union(*(imports(repo / path) for path in here))
    return found - {"dpuflow"} - OPTIONAL


def rules_with_scripts(repo):
    for path in sorted((repo / "rules").glob("*.smk")):
        for name, body in CONDA_OF_RULE.findall(path.read_text()):
            script = re.search(r'^    script:\n        "../scripts/(\w+\.py)"', body, re.MULTILINE)
            conda = re.search(r'^    conda:\n        "../envs/(\w+)\.yaml"', body, re.MULTILINE)
            if script:
                yield name, script[1], conda and conda[1]


def test_every_script_finds_what_it_imports(repo):
    rules = list(rules_with_scripts(repo))
    assert len(rules) > 20
    for name, script, conda in rules:
        assert conda, f"rule {name} has no conda file"
        own = pins(environment(repo, conda)[1])
        for module in third_party(repo, script):
            package = PACKAGE_OF.get(module, BROUGHT_ALONG.get(module, module)).lower()
            assert package in own, (
                f"rule {name} ({script}) imports {module}, envs/{conda}.yaml lacks {package}"
            )


def test_only_rules_that_need_tensorflow_install_it(repo):
    for name, script, conda in rules_with_scripts(repo):
        if "tensorflow" in third_party(repo, script):
            assert conda == "tensorflow", name
