"""A copy of the workflow that runs with the stand-in container runtime."""

import os
import re
import sys
from pathlib import Path

import pytest
from workflow_copy import TINY, Workflow, copy_of

STAND_IN = Path(__file__).with_name("stand_in")
BOARD = {"name": "ZCU102", "cores": 3, "clock_mhz": 281}


def entry_of_target(compiler, release="3.0", board=True):
    """Entry of a target for B4096."""
    entry = {"dpu": "DPUCZDX8G_ISA1_B4096", "release": release, "compiler": compiler}
    return {**entry, "board": BOARD} if board else entry


CONFIG = {
    "datasets": TINY["datasets"],
    "models": TINY["models"],
    "quantizers": {
        "ours": {"tool": "reference", "compat": "vai_q"},
        "tf1": {
            "tool": "vai_q_tensorflow",
            "release": "3.0",
            "calibration": {"images": 70, "batch": 32},
            "options": {"method": 1, "do_cle": 0},
        },
        "tf2": {"tool": "vai_q_tensorflow2", "release": "2.5", "options": {"include_cle": False}},
    },
    "targets": {
        "z_tf1": entry_of_target("vai_c_tensorflow"),
        "z_tf2": entry_of_target("vai_c_tensorflow2", "2.5", board=False)
        | {"compiler_options": {"mode": "debug"}},
        "z_xir": entry_of_target("vai_c_xir", "3.5"),
    },
    "runs": [
        {"dataset": "tiny", "model": "small", "quantizer": quantizer, "target": target, "runner": "emulator"}
        for quantizer, target in (("ours", "z_xir"), ("tf1", "z_tf1"), ("tf2", "z_tf2"))
    ],
}


class ContainerWorkflow(Workflow):
    """The workflow with the stand-in runtime first on the path (unless `runtime` is False)."""

    runtime = True

    @property
    def environment(self):
        environment = super().environment
        if self.runtime:
            environment["PATH"] = os.pathsep.join([str(STAND_IN), environment["PATH"]])
        return environment | {
            "DPUFLOW_STAND_IN": str(self.folder / "containers"),
            "DPUFLOW_STAND_IN_PYTHON": sys.executable,
        }

    def run(self, *arguments, config=CONFIG, runtime=True):
        """Snakemake's result, output and errors merged in `stdout`."""
        self.runtime = runtime
        return super().run(*arguments, config=config, check=False)

    def planned(self, result):
        """{rule: jobs} of a dry run's output."""
        assert result.returncode == 0, result.stdout
        table = result.stdout.partition("Job stats:")[2].partition("total")[0]
        return {rule: int(n) for rule, n in re.findall(r"^(\w+)\s+(\d+)$", table, re.MULTILINE)}


@pytest.fixture(scope="session")
def workflow(repo, tmp_path_factory):
    """A copy of the workflow's own files."""
    return ContainerWorkflow(copy_of(repo, tmp_path_factory.mktemp("vitis_ai") / "copy"), CONFIG)
