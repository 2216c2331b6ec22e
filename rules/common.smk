# What all rules share: the checked configuration, wildcard constraints, the code a rule depends on.

import os
import sys
from pathlib import Path

ROOT = Path(workflow.basedir)
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from snakemake.exceptions import WorkflowError

from dpuflow.code_closure import source_files
from dpuflow.config import Settings, check, expand_runs
from dpuflow.errors import UserError

# Scripts run in processes of their own and find the package there, whatever the working directory.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))

try:
    check(config, ROOT / "config/config.schema.yaml")
except UserError as error:
    raise WorkflowError(str(error)) from None

SETTINGS = Settings(config)
RUNS = expand_runs(config)


def relative(path):
    """A file of the workflow as an input: relative where Snakemake was started in the workflow's folder."""
    return Path(path) if Path.cwd() == ROOT else ROOT / path


def code(script):
    """The modules that a script imports, as input files: an edit there makes its rule stale."""
    return [str(relative(path)) for path in source_files(f"scripts/{script}", ROOT)]


wildcard_constraints:
    dataset="|".join(config["datasets"]),
    model=r"[A-Za-z0-9][A-Za-z0-9_]*(-s[0-9]+)?",
    quantizer="|".join(config["quantizers"]),
    target="|".join(config["targets"]),
    runner="|".join(config["runners"]),
