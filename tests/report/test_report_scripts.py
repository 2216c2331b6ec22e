"""scripts/report.py and scripts/sweep_report.py, run alone as a user can."""

import json
import subprocess
import sys

import pytest
from made_up_runs import make_run

from dpuflow.base.files import read_json


def run_script(repo, name, folder, runs):
    outputs = [f"output.{key}={folder / 'out' / file}" for key, file in OUTPUTS[name].items()]
    return subprocess.run(
        [sys.executable, str(repo / "scripts" / name), *outputs, f"params.runs={json.dumps(runs)}"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(repo), "PATH": "/usr/bin:/bin"},
        cwd=folder,
        check=False,
    )


OUTPUTS = {
    "report.py": {"html": "accuracy.html", "markdown": "accuracy.md", "data": "accuracy.json"},
    "sweep_report.py": {"html": "sweep.html", "data": "sweep.json"},
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_scripts_write_their_outputs(repo, tmp_path, name):
    done = run_script(repo, name, tmp_path, [make_run(tmp_path)])
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(OUTPUTS[name].values())
    html = OUTPUTS[name]["html"]
    assert done.stderr.rstrip().endswith(f"{html}")
    assert "97.50 %" in (tmp_path / "out" / html).read_text(encoding="utf-8").replace("\xa0", " ")
    if name == "report.py":  # no git repository here
        assert read_json(tmp_path / "out/accuracy.json")["provenance"]["commit"] is None


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_mistake_is_one_line_and_leaves_nothing(repo, tmp_path, name):
    entry = make_run(tmp_path, full=False)
    entry["files"]["board_accuracy"] = str(tmp_path / "gone.json")
    done = run_script(repo, name, tmp_path, [entry])
    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path / 'gone.json'}: no such file\n"
    assert not (tmp_path / "out").exists()
