"""Run a bundle on a board over SSH -> predictions.csv, board.json, board_accuracy.json."""

import tempfile
from dataclasses import fields
from pathlib import Path

from dpuflow.accuracy.evaluation import read_accuracy
from dpuflow.board.compare import board_record
from dpuflow.board.ssh import Patience, boards_from_config, run
from dpuflow.device.targets import load_targets
from dpuflow.records import write_record
from dpuflow.workflow.scripting import log, log_accuracy
from dpuflow.workflow.scripting import run as run_script


def main(snakemake):
    name, params = snakemake.wildcards.target, snakemake.params
    targets = load_targets(extra={name: params.target["hardware"]})
    runner = dict(params.runner)
    boards = boards_from_config(runner.get("boards"))
    patience = Patience(**{f.name: runner[f.name] for f in fields(Patience) if f.name in runner})
    bundle, out = snakemake.input.bundle, Path(snakemake.output.report).parent
    quantized = snakemake.input.get("quantized")
    quantized = read_accuracy(quantized) if quantized else None
    options = runner.get("options", {})
    run(bundle, boards, out, options, targets, patience)
    record = board_record(out, bundle, quantized=quantized, runner="ssh")
    different = record["agreement_with_emulator"]["first_different_output"]
    if different and options.get("dump", True) is not False:
        # which layer: one more, short run that dumps the tensors of the first image that differs
        log.info("image %d differs from the emulator; dumping its tensors", different["image"])
        with tempfile.TemporaryDirectory() as folder:
            again = {**options, "limit": different["image"] + 1, "dump": different["image"], "runs": 1}
            run(bundle, boards, folder, again, targets, patience)
            record = board_record(out, bundle, quantized=quantized, dump=Path(folder) / "dump", runner="ssh")
    write_record(snakemake.output.accuracy, "accuracy.schema.yaml", record)
    log_accuracy(record)


run_script(main, globals())
