"""The table of networks: the page says what was measured, and one network goes through every stage."""

import json
import subprocess
import sys

from benchmarks.networks import __main__ as command
from benchmarks.networks.catalogue import CATALOGUE
from benchmarks.networks.page import page

PASSED = [
    {"stage": "read", "seconds": 1.0, "mebibytes": 700, "input": [224, 224, 3], "parameters": 1234567},
    {"stage": "quantize", "seconds": 5.2, "mebibytes": 900},
    {
        **{"stage": "compile and verify", "seconds": 13.0, "mebibytes": 1100, "verify_seconds": 8.0},
        **{"latency_ms": 2.2629, "instructions": 9547, "on_cpu": ["up"]},
    },
    {"stage": "emulate", "seconds": 3.0, "run_seconds": 0.4, "mebibytes": 800, "images": 4},
]
FAILED = [*PASSED[:1], {"failed": "layer 'x' | does not fit"}]


def test_the_page_says_what_passed_and_why_what_did_not():
    text = page({"MobileNet": PASSED, "YOLOv3-tiny": FAILED})
    assert "**1 of 2 pass.**" in text
    row = "| 224x224x3 | 1,234,567 | 5 s, 0.9 GiB | 5 s | 8 s | 1.1 GiB | 100 ms, 0.8 GiB | up | 2.26 ms |"
    assert f"| MobileNet {row}" in text
    assert "| YOLOv3-tiny | 224x224x3 | 1,234,567 |  | **does not pass:** layer 'x' / does not fit |" in text
    assert text.index("## tf_keras.applications") < text.index("## Detection")


def test_the_page_of_the_project_is_made_from_its_results(repo):
    results = json.loads(command.RESULTS.read_text())
    assert (repo / "docs" / "networks.md").read_text() == page(results)
    assert set(results) <= set(CATALOGUE)
    passed = sum("failed" not in stages[-1] for stages in results.values())
    assert len(results) >= 10 and passed >= 0.9 * len(results)


def test_a_network_that_takes_too_long_or_fails_is_a_row_with_its_reason(monkeypatch):
    read = subprocess.CompletedProcess([sys.executable], 0, json.dumps(PASSED[0]) + "\n", "")

    def measured(second):
        """The record of a network whose second stage ends so: with a process, or out of time."""
        ends = iter([read, second])

        def run(*arguments, timeout, **more):
            end = next(ends)
            if end is None:
                raise subprocess.TimeoutExpired("x", timeout)
            return end

        monkeypatch.setattr(subprocess, "run", run)
        return command.measured("MobileNet", 2)

    late = {"failed": "quantize: no result after 2 minutes in all"}
    assert measured(None) == [PASSED[0], late]
    killed = subprocess.CompletedProcess([sys.executable], -9, "", "")
    assert measured(killed) == [PASSED[0], {"failed": "quantize ended with -9"}]


def test_only_what_is_estimated_is_renewed(monkeypatch):
    anew = {"stage": "estimate", "latency_ms": 2.5, "instructions": 9000, "on_cpu": []}
    monkeypatch.setattr(command, "measured", lambda name, minutes, stages: [PASSED[0], PASSED[1], anew])
    renewed = command.estimated_anew("MobileNet", 1, PASSED)
    assert [renewed[0], renewed[1], renewed[3]] == [PASSED[0], PASSED[1], PASSED[3]]
    assert renewed[2] == {**PASSED[2], "latency_ms": 2.5, "instructions": 9000, "on_cpu": []}
    assert command.estimated_anew("MobileNet", 1, FAILED) == FAILED
    assert "measure it first" in command.estimated_anew("MobileNet", 1, None)[-1]["failed"]
    failed = {"stage": "estimate", "failed": "layer 'x'"}
    monkeypatch.setattr(command, "measured", lambda name, minutes, stages: [PASSED[0], failed])
    assert command.estimated_anew("MobileNet", 1, PASSED) == [*PASSED, failed]
