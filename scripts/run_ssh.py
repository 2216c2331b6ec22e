"""Run a bundle on a board over SSH -> predictions.csv, board.json, board_accuracy.json."""

import tempfile
from dataclasses import fields
from pathlib import Path

from dpuflow.board.ssh import Patience, boards_from_config, run
from dpuflow.device.targets import load_targets
from dpuflow.workflow.board_runs import run_record
from dpuflow.workflow.scripting import log
from dpuflow.workflow.scripting import run as run_script
from dpuflow.workflow.stage_records import write_stage


def main(snakemake):
    name, params = snakemake.wildcards.target, snakemake.params
    targets = load_targets(extra={name: params.target["hardware"]})
    runner = dict(params.runner)
    boards = boards_from_config(runner.get("boards"))
    patience = Patience(**{f.name: runner[f.name] for f in fields(Patience) if f.name in runner})
    bundle, out = snakemake.input.bundle, Path(snakemake.output.report).parent
    options = runner.get("options", {})
    run(bundle, boards, out, options, targets, patience)
    record = run_record(out, bundle, snakemake.input, "ssh")
    different = record.get("agreement_with_emulator", {}).get("first_different_output")
    if different and options.get("dump", True) is not False:
        # which layer: one more, short run that dumps the tensors of the first image that differs
        log.info("image %d differs from the emulator; dumping its tensors", different["image"])
        with tempfile.TemporaryDirectory() as folder:
            again = {**options, "limit": different["image"] + 1, "dump": different["image"], "runs": 1}
            run(bundle, boards, folder, again, targets, patience)
            record = run_record(out, bundle, snakemake.input, "ssh", dump=Path(folder) / "dump")
    write_stage(snakemake.output.accuracy, record)


run_script(main, globals())
