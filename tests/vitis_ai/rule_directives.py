"""Print {rule: {"conda", "container", "script"}} of the workflow here as JSON, as Snakemake read it.

A process of its own: Snakemake's API keeps global state.
"""

import json
import sys
from pathlib import Path

from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, OutputSettings, ResourceSettings


def main():
    with SnakemakeApi(OutputSettings()) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(configfiles=[Path(sys.argv[1])]),
            snakefile=Path("Snakefile"),
        )._workflow
        rules = {
            rule.name: {
                "conda": rule._conda_env and Path(str(rule._conda_env)).name,
                "container": rule._container_img is not None,
                "shell": rule.shellcmd is not None,
                "script": rule.script and Path(str(rule.script)).name,
            }
            for rule in workflow.rules
        }
    Path(sys.argv[2]).write_text(json.dumps(rules))


main()
