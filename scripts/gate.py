"""Accuracy records of all stages + limits -> gate.json; fails with the table of stages if one is exceeded."""

from dpuflow.accuracy.gate import evaluate, require, table
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.records import write_record
from dpuflow.task.tasks import read_stage, task_of
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    paths = snakemake.input.records  # a single path comes as text
    records = [read_stage(path) for path in (paths.split(",") if isinstance(paths, str) else paths)]
    task, labels = task_of(records[0]), None
    if task is None and snakemake.input.get("dataset"):
        labels = read_dataset(snakemake.input.dataset).labels_in(records[0]["split"])
    result = evaluate({record["stage"]: record for record in records}, snakemake.params.limits, labels, task)
    write_record(snakemake.output.gate, "gate.schema.yaml", result)
    log.info("%s", table(result))
    require(result)


run(main, globals())
