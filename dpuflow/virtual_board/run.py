"""Run a bundle's application on the virtual board of this machine."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpuflow.base.errors import UserError
from dpuflow.base.files import write_bytes
from dpuflow.board.application import arguments
from dpuflow.board.bundle import Bundle
from dpuflow.records import read_record

if TYPE_CHECKING:
    from dpuflow.device.targets import Target

HERE = Path(__file__).resolve().parent
PACKAGE_PARENT = HERE.parent.parent


def environment(target: "Target | None" = None, batch: int = 1) -> dict[str, str]:
    """Variables that make any shell or SSH login a virtual board.

    target : the Target that it pretends to be (default: DPUCZDX8G_ISA1_B4096 of release 3.0).
    batch : images per call.
    """
    variables = {
        "PYTHONPATH": os.pathsep.join([str(HERE / "site"), str(PACKAGE_PARENT)]),
        "PATH": os.pathsep.join([str(HERE / "bin"), os.environ.get("PATH", os.defpath)]),
        "DPUFLOW_VIRTUAL_PYTHON": sys.executable,
        "DPUFLOW_VIRTUAL_BATCH": str(batch),
    }
    if target is not None:
        variables["DPUFLOW_VIRTUAL_FINGERPRINT"] = hex(target.fingerprint)
        variables["DPUFLOW_VIRTUAL_ARCH"] = target.dpu
        variables["DPUFLOW_VIRTUAL_CORES"] = str(target.board.cores if target.board else 1)
    return variables


def run(
    bundle: Path | str,
    out: Path | str,
    options: Mapping[str, Any] | None = None,
    target: "Target | None" = None,
    batch: int = 1,
) -> dict[str, Any]:
    """Run the application of a bundle here; results go to `out`. Returns the parsed board.json.

    options : options of the application (`dpuflow.board.application.arguments`).
    """
    content, words = Bundle.open(bundle), arguments(options)
    with tempfile.TemporaryDirectory(prefix="dpuflow-board-") as scratch:
        folder = content.unpack(Path(scratch) / "bundle")
        results = Path(scratch) / "results"
        command = [sys.executable, str(folder / "app.py"), "--out", str(results), *words]
        variables = {**os.environ, **environment(target, batch)}
        done = subprocess.run(command, env=variables, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"the board application failed:\n{done.stderr.strip()[-4000:]}")
        for path in sorted(results.rglob("*")):
            if path.is_file():
                write_bytes(Path(out) / path.relative_to(results), path.read_bytes())
    return read_record(Path(out) / "board.json", "board.schema.yaml")
