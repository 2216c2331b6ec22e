import os
import subprocess
import sys

from dpuflow.base.importing import export_package


def test_a_child_process_elsewhere_finds_the_package(repo, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere/else")
    export_package(repo)
    assert os.environ["PYTHONPATH"] == os.pathsep.join([str(repo), "/somewhere/else"])
    export_package(repo)
    assert os.environ["PYTHONPATH"].count(str(repo)) == 1
    code = "import dpuflow.base.errors; print(dpuflow.base.errors.__file__)"
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert found.stdout.strip() == str(repo / "dpuflow/base/errors.py")
