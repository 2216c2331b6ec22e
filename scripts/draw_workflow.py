"""The workflow's rules or jobs as a picture: params.what is "rulegraph" or "dag" -> SVG."""

import subprocess
import sys
import tempfile
from pathlib import Path

from dpuflow.base.errors import UserError
from dpuflow.base.files import write_json, write_text
from dpuflow.workflow.rulegraph import draw
from dpuflow.workflow.scripting import run


def main(snakemake):
    params = snakemake.params
    with tempfile.TemporaryDirectory() as folder:
        # the merged configuration of this run, wherever it came from
        config = Path(folder) / "config.json"
        write_json(config, params.config)
        command = [sys.executable, "-m", "snakemake", "all", f"--{params.what}", "mermaid-js", "--cores", "1"]
        command += ["--snakefile", snakemake.input.snakefile, "--configfile", str(config), "--nolock"]
        result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise UserError(f"snakemake --{params.what} failed:\n{result.stderr.strip()[-2000:]}")
    write_text(snakemake.output.picture, draw(result.stdout))


run(main, globals())
