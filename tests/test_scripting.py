import json
import os
import re
import signal
import subprocess
import sys

import pytest

from dpuflow.base.errors import UserError
from dpuflow.workflow.scripting import parse_assignments

SCRIPT = """
import atexit
import os
import resource
import signal
import sys
import time

from dpuflow.base.errors import UserError
from dpuflow.workflow.scripting import log, run

def main(snakemake):
    if snakemake.params.fail == "user":
        raise UserError("data.csv: row 3 is wrong")
    if snakemake.params.fail == "defect":
        raise KeyError("oops")
    if snakemake.params.fail == "not, but TensorFlow is there":
        atexit.register(print, "taken apart")
        sys.modules["tensorflow"] = sys
        log.info("done")
    if snakemake.params.fail == "killed":
        held = bytearray(os.urandom(1)) * 200_000_000
        log.info("first line")
        os.kill(os.getpid(), signal.SIGKILL)
    if snakemake.params.fail == "terminated":
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(30)
    if snakemake.params.fail == "memory":
        resource.setrlimit(resource.RLIMIT_AS, (2_000_000_000, 2_000_000_000))
        bytearray(4_000_000_000)
    print(snakemake.input.a, snakemake.params.n + 1, snakemake.threads)

run(main, globals())
"""


@pytest.fixture
def script(tmp_path, repo):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)

    def call(*words):
        return subprocess.run(
            [sys.executable, path, *words], capture_output=True, text=True, env={"PYTHONPATH": str(repo)}
        )

    return call


def test_assignments_become_the_shape_that_snakemake_gives():
    job = parse_assignments(["input.a=x.h5", "params.n={k: [1, 2]}", "threads=3", "log=l.log"])
    assert job.input.a == "x.h5" and job.input[0] == "x.h5"
    assert job.params.n == {"k": [1, 2]} and job.params.get("missing", 5) == 5
    assert job.threads == 3 and list(job.log) == ["l.log"]


@pytest.mark.fault("configuration", "script argument {id}", "refused")
@pytest.mark.parametrize("word", ["input.a", "inptu.a=1", "input=1"])
def test_a_wrong_assignment_is_named(word):
    with pytest.raises(UserError):
        parse_assignments([word])


def test_a_script_runs_alone(script):
    result = script("input.a=f", "params.n=4", "params.fail=no", "threads=2")
    assert (result.returncode, result.stdout) == (0, "f 5 2\n")


@pytest.mark.fault("results", "a user's mistake in a script", "message")
def test_a_users_mistake_is_one_line(script, tmp_path):
    result = script("params.fail=user", f"log={tmp_path}/l.log")
    assert result.returncode == 1
    assert result.stderr == "error: data.csv: row 3 is wrong\n"
    assert (tmp_path / "l.log").read_text() == result.stderr


def test_a_defect_shows_its_traceback(script):
    result = script("params.fail=defect")
    assert result.returncode == 1 and "Traceback" in result.stderr


@pytest.mark.fault("configuration", "script without a value that it needs", "message")
def test_a_missing_value_and_help_name_the_keys(script):
    result = script("input.a=1")
    assert result.returncode == 2 and "fail" in result.stderr
    usage = script("--help")
    assert usage.returncode == 0 and "input.a" in usage.stdout and "params.n" in usage.stdout


def test_what_tensorflow_built_is_not_taken_apart_and_all_output_is_there(script, tmp_path):
    words = ("input.a=f", "params.n=4", "params.fail=not, but TensorFlow is there", "threads=2")
    result = script(*words, f"log={tmp_path}/l.log")
    assert (result.returncode, result.stdout, result.stderr) == (0, "f 5 2\n", "done\n")
    assert (tmp_path / "l.log").read_text() == "done\n"


def test_a_rules_script_runs_alone_as_its_usage_says(repo, tmp_path):
    def alone(*words):
        command = [sys.executable, "-m", "scripts.vitis_ai_arch", *words]
        clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        return subprocess.run(command, cwd=repo, env=clean, capture_output=True, text=True)

    usage = alone()
    assert usage.returncode == 2
    assert usage.stdout.startswith("usage: python -m scripts.vitis_ai_arch SECTION.KEY=VALUE ...")
    assert "output.arch" in usage.stdout and "params.hardware" in usage.stdout
    target = ("wildcards.target=t", "params.hardware={dpu: DPUCZDX8G_ISA1_B4096, release: '3.0'}")
    done = alone(f"output.arch={tmp_path}/arch.json", *target)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "arch.json").read_text()) == {"fingerprint": "0x101000056010407"}


@pytest.mark.fault("processes", "SIGKILL of a job, as for want of memory", "message")
def test_a_killed_job_says_what_it_needed(script, tmp_path):
    result = script("input.a=f", "params.n=1", "params.fail=killed", f"log={tmp_path}/l.log")
    assert result.returncode == 128 + 9
    found = re.search(
        r"^error: script was killed \(SIGKILL\), .*memory ran out.* It held ([\d,]+) MB at most; this "
        r"machine has [\d,]+ MB\. .*--set-resources script:mem_mb=1000$",
        result.stderr,
        re.MULTILINE,
    )
    assert 200 <= int(found[1].replace(",", "")) < 400
    assert (tmp_path / "l.log").read_text() == result.stderr and result.stderr.startswith("first line\n")


def test_other_signals_reach_the_job_and_are_passed_on(script):
    result = script("input.a=f", "params.n=1", "params.fail=terminated")
    assert result.returncode == -signal.SIGTERM and result.stderr == ""


@pytest.mark.fault("processes", "memory refused to a job", "message")
def test_memory_that_is_refused_is_no_internal_error(script):
    result = script("input.a=f", "params.n=1", "params.fail=memory")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert result.stderr.startswith("error: script ran out of memory") and "It held" in result.stderr
