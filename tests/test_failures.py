"""What a failed run of the workflow leaves for its report, and what a terminal shows of Snakemake."""

import io
import logging
import os
from types import SimpleNamespace

import pytest

from dpuflow.workflow.config import configuration_name
from dpuflow.workflow.failures import UnfinishedJob, what_there_is
from dpuflow.workflow.terminal import JobLines, failure, is_noise, quieten

RUN = {"dataset": "d", "model": "m", "quantizer": "q", "target": "t", "runner": "r"}


def entry(folder, model, *names):
    files = {}
    for name in names:
        path = folder / model / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
        files[name] = str(path)
    return {**RUN, "model": model, "files": files}


def test_files_of_unfinished_jobs_are_of_an_earlier_run_and_do_not_count(tmp_path):
    whole, half = entry(tmp_path, "whole", "a", "b"), entry(tmp_path, "half", "a", "b")
    log = tmp_path / "q.log"
    log.write_text("positions ...\nerror: layer 'x': cannot be quantized\n")
    jobs = [
        UnfinishedJob("quantize", {"dataset": "d", "model": "half"}, [half["files"]["b"]], [str(log)]),
        UnfinishedJob("compile", {"dataset": "d", "model": "half", "target": "t"}, []),
        UnfinishedJob("report", {}, ["report.html"]),
    ]
    entries, failures = what_there_is([whole, half], jobs)
    assert entries == [whole, {**half, "files": {"a": half["files"]["a"]}}]
    assert failures == [
        {**RUN, "model": "half", "rule": "quantize", "message": "layer 'x': cannot be quantized"}
    ]


def test_a_run_that_was_not_reached_says_so(tmp_path):
    half = entry(tmp_path, "half", "a")
    log = tmp_path / "old.log"
    log.write_text("error: of an earlier run\n")
    os.utime(log, (50, 50))
    job = UnfinishedJob("train", {"model": "half"}, [half["files"]["a"]], [str(log)], started=100)
    _, (failure,) = what_there_is([half], [job])
    assert failure["rule"] == "train" and failure["message"].startswith("not run")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nerror: one\nTraceback\n", "one"),
        ("internal error (this is a defect of dpuflow, not of your data)\nTraceback", "internal error"),
        ("vendor: Segmentation fault\n", "vendor: Segmentation fault"),
        ("", "ended without a word"),
    ],
)
def test_the_message_is_the_error_line_or_the_last_one(tmp_path, text, message):
    (tmp_path / "log").write_text(text)
    assert UnfinishedJob("r", {}, [], [str(tmp_path / "log")]).message().startswith(message)


@pytest.mark.parametrize(
    ("config", "files", "name"),
    [
        ({}, [], ""),
        ({}, ["config/config.yaml"], ""),
        ({}, ["config/sign_mnist.yaml"], "sign_mnist"),
        ({}, ["a/my run.yaml", "b.json"], "my_run+b"),
        ({"name": "mine"}, ["other.yaml"], "mine"),
    ],
)
def test_a_configuration_is_called_after_its_file(config, files, name):
    assert configuration_name(config, files, "config/config.yaml") == name


def lines_of(*records):
    """What a terminal shows: lines of `JobLines`, and messages that it lets pass."""
    stream = io.StringIO()
    shown = JobLines(stream)
    for values in records:
        record = logging.makeLogRecord({"levelno": logging.INFO, **values})
        if shown.filter(record):
            stream.write(f"{record.getMessage()}\n")
    return stream.getvalue().splitlines()


def test_a_job_is_a_line_with_its_number_and_run():
    job = {"event": "job_info", "rule_name": "train", "wildcards": {"dataset": "d", "model": "m"}}
    stats = {"event": "run_info", "stats": {"train": 1, "report": 1, "all": 1, "total": 3}}
    report = {**job, "rule_name": "report", "wildcards": None}
    assert lines_of(
        stats, {"msg": "Select jobs to execute..."}, job, report, {**report, "rule_name": "all"}
    ) == [
        "[1/2] train d/m",
        "[2/2] report",
    ]


def test_a_failed_job_is_its_own_error_line_or_the_end_of_a_strange_log(tmp_path):
    ours, theirs = tmp_path / "ours.log", tmp_path / "theirs.log"
    ours.write_text("error: known\n")
    theirs.write_text("start\nsegmentation fault\n")
    failed = {"event": "job_error", "rule_name": "quantize", "log": [str(ours)]}
    assert lines_of(failed, {**failed, "log": [str(theirs)]}) == [
        f"failed: quantize (log: {ours})",
        f"failed: quantize (log: {theirs})",
        "  start",
        "  segmentation fault",
    ]
    assert failure(failed, local=False) == f"failed: quantize (log: {ours})\n  error: known"


@pytest.mark.parametrize(
    ("message", "noise"),
    [
        ("Execute 2 jobs...", True),
        (
            "RuleException:\nCalledProcessError in file x:\nCommand 'a' returned non-zero exit status 1.",
            True,
        ),
        ("WorkflowError:\nAt least one job did not complete successfully.", True),
        ("", True),
        ("Nothing to be done (all requested files are present and up to date).", False),
        ("RuleException:\nMissingOutputException: the file is not there", False),
        ("Job 5 has been submitted with SLURM jobid 7", False),
    ],
)
def test_only_what_is_known_to_say_nothing_is_dropped(message, noise):
    assert is_noise(message) is noise
    assert lines_of({"msg": message}) == ([] if noise else message.splitlines())


@pytest.mark.parametrize("option", ["verbose", "printshellcmds", "dryrun", "debug_dag"])
def test_whoever_asks_for_everything_gets_it(option):
    settings = dict.fromkeys(("verbose", "printshellcmds", "dryrun", "debug_dag"), False)
    handler = logging.StreamHandler(io.StringIO())
    handler.name = "DefaultStreamHandler"
    quieten([handler], SimpleNamespace(**settings | {option: True}), lambda: True)
    assert handler.filters == []
    quieten([handler], SimpleNamespace(**settings), lambda: True)
    assert len(handler.filters) == 1
