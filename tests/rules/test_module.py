"""The workflow as a module of another workflow, in another folder."""

import subprocess
import sys

import pytest
import yaml
from workflow_copy import TINY, Workflow, copy_of

pytestmark = pytest.mark.rules

OUTER = """\
configfile: "outer.yaml"


module letters:
    snakefile:
        "../elsewhere/dpuflow/Snakefile"
    config:
        config["letters"]


use rule * from letters as letters_*


rule all:
    default_target: True
    input:
        "count.txt",
        "results/report/accuracy.html",


rule count:
    input:
        "results/tiny/dataset.h5",
    output:
        "count.txt",
    shell:
        "wc -c < {input} > {output}"
"""


@pytest.fixture(scope="module")
def outer(repo, tmp_path_factory):
    """A workflow of somebody else's; returns a function that runs Snakemake in its folder."""
    folder = tmp_path_factory.mktemp("module")
    copy_of(repo, folder / "elsewhere/dpuflow")
    work = folder / "mine"
    work.mkdir()
    default = yaml.safe_load((repo / "config/config.yaml").read_text())
    (work / "Snakefile").write_text(OUTER)
    (work / "outer.yaml").write_text(yaml.safe_dump({"letters": default | TINY}))

    def run(*arguments):
        result = subprocess.run(
            [sys.executable, "-m", "snakemake", "--cores", "2", *arguments],
            cwd=work,
            env=Workflow(work, None).environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert result.returncode == 0, result.stdout
        return result.stdout

    run.folder = work
    return run


def test_the_whole_chain_is_planned(outer):
    plan = outer("-n", "--forceall", "--quiet", "rules")
    for rule in ("letters_build_dataset", "letters_train", "letters_run_emulator", "letters_report", "count"):
        assert rule in plan


def test_a_job_of_the_module_runs_in_the_outer_folder(outer):
    output = outer("count.txt")
    assert "letters_build_dataset" in output
    size = (outer.folder / "results/tiny/dataset.h5").stat().st_size
    assert int((outer.folder / "count.txt").read_text()) == size > 100_000
    assert (outer.folder / "logs/tiny/build_dataset.log").is_file()
    assert "Nothing to be done" in outer("count.txt")
