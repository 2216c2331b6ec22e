"""SIGKILL in the middle of every rule: nothing partial under a final name, and a plain rerun finishes."""

import re

import pytest
from killed_jobs import rules
from ssh_server import what_is_missing

pytestmark = [pytest.mark.slow, pytest.mark.rules]

VENDORS = ("compile_vai_c_tensorflow", "compile_vai_c_tensorflow2", "compile_vai_c_xir")
"""The vendor's compilers write under the final name themselves."""

MEASURED = re.compile(
    r"/board\.json$|/sweep\.(html|json)$|/quantizer_search\.|/(quantize|compile)\.log$|/provenance\.json$"
)
"""Artifacts that hold times, provenance.json with the checksum of one, and logs of the vendor's tools."""


ACCURACY = "results/report/test/accuracy.json"
PARTIAL = re.compile(r"^results/report/test/accuracy\.(html|md)$")


@pytest.fixture
def killed(campaign):
    """Factory: the killer's note about a rule."""

    def note(rule):
        if rule == "run_ssh" and what_is_missing():
            pytest.skip(what_is_missing())
        assert rule in campaign.notes, f"{rule} never ran: killed_jobs.py needs a target for it"
        return campaign.notes[rule]

    return note


@pytest.mark.fault("processes", "SIGKILL of the process of rule {id}, while it writes", "resume")
@pytest.mark.parametrize("rule", rules())
def test_a_killed_rule_leaves_nothing_partial(campaign, undisturbed, killed, rule):
    note = killed(rule)
    # what lay under a final name beside the file being written, at that moment
    partial_report = ACCURACY not in note["beside"]
    for path, digest in note["beside"].items():
        # the pages that an earlier failure left, of which no accuracy.json says that they are whole
        if partial_report and PARTIAL.search(path):
            continue
        if path == note["at"] and rule in VENDORS:
            assert digest != undisturbed.artifacts[path], "killed too late"
        elif not MEASURED.search(path) and "/." not in path:
            assert digest == undisturbed.artifacts[path], path
    if note["where"] == "before the rename":
        assert note["at"] not in note["beside"]
    if note["where"] == "after the first output":
        assert note["at"] in note["beside"]


@pytest.mark.fault("processes", "a kill in every rule, one after the other, in one data flow", "resume")
def test_plain_reruns_finish_with_the_same_bytes(campaign, undisturbed):
    assert campaign.runs[-1].returncode == 0, campaign.runs[-1].stdout
    assert len(campaign.runs) > 8
    assert campaign.artifacts.keys() == undisturbed.artifacts.keys()
    different = {p for p, digest in campaign.artifacts.items() if digest != undisturbed.artifacts[p]}
    assert not [path for path in different if not MEASURED.search(path)]
    # no remains: temporary folders of the killed are gone
    for part in ("resources", "results", "deploy"):
        assert not list(campaign.workflow.path(part).rglob(".*"))


def test_every_failed_run_says_so_and_keeps_whole_files_only(campaign, undisturbed):
    for result, left in zip(campaign.runs[:-1], campaign.left[:-1], strict=True):
        assert result.returncode != 0
        assert "killed" in result.stdout.lower() or "non-zero exit" in result.stdout
        for path, digest in left.items():
            # after a failure the report's pages say what there is and what failed
            if PARTIAL.search(path):
                continue
            if not MEASURED.search(path) and "/." not in path and ".partial." not in path:
                assert digest == undisturbed.artifacts[path], path
