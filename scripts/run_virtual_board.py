"""Run a bundle's application on the virtual board -> predictions.csv, board.json, board_accuracy.json."""

from pathlib import Path

from dpuflow.board.bundle import Bundle
from dpuflow.device.targets import configured_target
from dpuflow.virtual_board.run import run as run_on_virtual_board
from dpuflow.workflow.board_runs import run_record
from dpuflow.workflow.scripting import run
from dpuflow.workflow.stage_records import write_stage


def main(snakemake):
    bundle = Bundle.open(snakemake.input.bundle)
    name = snakemake.wildcards.target
    target = configured_target(name, snakemake.params.target["hardware"])
    options = {"threads": snakemake.threads, "runs": 1, "warmup": 0, **snakemake.params.get("options", {})}
    out = Path(snakemake.output.report).parent
    run_on_virtual_board(bundle.path, out, options, target, batch=snakemake.params.get("batch", 64))
    record = run_record(out, bundle.path, snakemake.input, "virtual_board")
    write_stage(snakemake.output.accuracy, record)


run(main, globals())
