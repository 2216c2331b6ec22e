"""Counts the faults that the tests try, for docs/reliability.md. A pytest plugin.

A test that breaks something on purpose has the marker fault(group, what, end); one that feeds a parser
generated input has fuzz(parser). With `--reliability=FILE` only those run, and FILE becomes the page; with
`--reliability-with-all=FILE` all run. With
`--reliability-list=FILE` nothing runs: FILE gets the lines that the page has to have, as JSON.
"""

import json
from pathlib import Path

import pytest
from reliability_page import GROUPS, Fault, lines, page


def pytest_addoption(parser):
    parser.addoption("--reliability", metavar="FILE", help="run the marked tests only and write the page")
    parser.addoption("--reliability-with-all", metavar="FILE", help="run all tests and write the page")
    parser.addoption(
        "--reliability-list", metavar="FILE", help="run nothing; write what the page has to list"
    )


def pytest_configure(config):
    config.pluginmanager.register(Record(config), "faults_of_this_run")


def fault_of(item):
    """The Fault of a marked test, or None."""
    mark = item.get_closest_marker("fault")
    if mark is None:
        return None
    group, what, end = mark.args
    assert group in GROUPS, f"{item.nodeid}: {group!r} is not a group of tests/fault_record.py"
    identity = item.callspec.id if hasattr(item, "callspec") else ""
    return Fault(group, what.replace("{id}", identity), end)


def examples_of(item):
    """How many inputs a fuzzing test draws at most: hypothesis' setting, or the marker's `examples`."""
    settings = getattr(item.function, "_hypothesis_internal_use_settings", None)
    return item.get_closest_marker("fuzz").kwargs.get("examples") or (
        settings.max_examples if settings else 1
    )


class Record:
    """What was collected, and how it ended."""

    def __init__(self, config):
        self.page = config.getoption("--reliability")
        self.list = config.getoption("--reliability-list")
        self.only = bool(self.page or self.list)
        self.page = self.page or config.getoption("--reliability-with-all")
        self.faults, self.fuzzed, self.outcomes = {}, {}, {}

    @pytest.hookimpl(tryfirst=True)  # all that was collected, before -k and -m
    def pytest_collection_modifyitems(self, config, items):
        for item in items:
            if fault := fault_of(item):
                self.faults[item.nodeid] = fault
            if mark := item.get_closest_marker("fuzz"):
                self.fuzzed[item.nodeid] = (mark.args[0], examples_of(item))
        if self.only:
            keep = [item for item in items if item.nodeid in self.faults or item.nodeid in self.fuzzed]
            config.hook.pytest_deselected(items=[item for item in items if item not in keep])
            items[:] = [] if self.list else keep

    def pytest_runtest_logreport(self, report):
        """The worst of set-up, call and tear-down counts."""
        if report.failed:
            self.outcomes[report.nodeid] = ("failed", "")
        elif report.skipped and report.nodeid not in self.outcomes:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.outcomes[report.nodeid] = ("skipped", reason.removeprefix("Skipped: "))
        elif report.when == "call":
            self.outcomes.setdefault(report.nodeid, ("survived", ""))

    def pytest_sessionfinish(self, session):
        if self.list:
            Path(self.list).write_text(json.dumps(lines(self.faults.values(), self.fuzzed.values())))
        if self.page:
            path = Path(session.config.invocation_params.dir) / self.page
            path.write_text(page(self.faults, self.fuzzed, self.outcomes), encoding="utf-8")
