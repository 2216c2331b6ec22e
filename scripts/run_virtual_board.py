"""Run a bundle's application on the virtual board -> predictions.csv, board.json, board_accuracy.json."""

from pathlib import Path

from dpuflow.accuracy.evaluation import read_accuracy
from dpuflow.board.bundle import Bundle
from dpuflow.board.compare import board_record
from dpuflow.device.targets import configured_target
from dpuflow.records import write_record
from dpuflow.virtual_board.run import run as run_on_virtual_board
from dpuflow.workflow.scripting import log_accuracy, run


def main(snakemake):
    bundle = Bundle.open(snakemake.input.bundle)
    name = snakemake.wildcards.target
    target = configured_target(name, snakemake.params.target["hardware"])
    options = {"threads": snakemake.threads, "runs": 1, "warmup": 0, **snakemake.params.get("options", {})}
    out = Path(snakemake.output.report).parent
    run_on_virtual_board(bundle.path, out, options, target, batch=snakemake.params.get("batch", 64))
    quantized = snakemake.input.get("quantized")
    record = board_record(
        out, bundle.path, quantized=read_accuracy(quantized) if quantized else None, runner="virtual_board"
    )
    write_record(snakemake.output.accuracy, "accuracy.schema.yaml", record)
    log_accuracy(record)


run(main, globals())
