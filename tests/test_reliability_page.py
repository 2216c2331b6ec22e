"""docs/reliability.md lists exactly the faults that the tests try; the plugin that writes it counts right."""

import json
import os
import re
import subprocess
import sys

import pytest
from reliability_page import Fault, lines, page


def listed(repo, session, folder):
    """The lines that the page has to have, from this session if it collected everything."""
    record = session.config.pluginmanager.get_plugin("faults_of_this_run")
    if session.config.args_source.name == "TESTPATHS":
        return lines(record.faults.values(), record.fuzzed.values())
    path = folder / "lines.json"
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--reliability-list={path}"],
        cwd=repo, env=os.environ | {"PYTEST_ADDOPTS": ""}, capture_output=True,
    )  # fmt: skip
    return json.loads(path.read_text())


def test_the_page_lists_what_the_tests_try(repo, request, tmp_path):
    text = (repo / "docs/reliability.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [^|]+ \| (?!\d)[^|]+ \| \d+ \|(?= \w)", text, re.MULTILINE)
    rows += re.findall(r"^\| [^|]+ \| [\d,]+ \|$", text, re.MULTILINE)
    assert sorted(rows) == listed(repo, request.session, tmp_path), "make reliability"
    assert "failed" not in text


def test_the_figures_in_the_readme_are_those_of_the_page(repo):
    tried, survived, skipped = re.search(
        r"^\| \*\*all\*\* \| (\d+) \| (\d+) \| (\d+) \|$",
        (repo / "docs/reliability.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    ).groups()
    assert int(tried) == int(survived) + int(skipped)
    assert f"{survived} of {tried} faults" in (repo / "README.md").read_text(encoding="utf-8")


def test_outcomes_are_counted_by_group_and_reasons_given():
    faults = {
        "a": Fault("data", "x", "refused"),
        "b": Fault("data", "x", "refused"),
        "c": Fault("data", "y", "resume"),
        "d": Fault("board", "z", "message"),
    }
    outcomes = {
        "a": ("survived", ""),
        "b": ("failed", ""),
        "c": ("survived", ""),
        "d": ("skipped", "no sshd"),
    }
    text = page(
        faults, {"f": ("CSV", 40), "g": ("CSV", 2)}, outcomes | {"f": ("survived", ""), "g": ("survived", "")}
    )
    assert "| Data sets: CSV, zip, gz | 3 | 2 | 0 |" in text and "| **all** | 4 | 2 | 1 |" in text
    assert "3 faults tried, 2 survived, 1 failed." in text and "- no sshd" in text
    assert "| x | refused | 2 | 1 failed, 1 survived |" in text and "| CSV | 42 |" in text
    for line in lines(faults.values(), [("CSV", 40), ("CSV", 2)]):
        assert line in text


@pytest.mark.parametrize("outcomes", [{}, {"a": ("failed", "")}])
def test_a_test_that_did_not_pass_is_no_survivor(outcomes):
    assert "| **all** | 1 | 0 | 0 |" in page({"a": Fault("data", "x", "refused")}, {}, outcomes)
