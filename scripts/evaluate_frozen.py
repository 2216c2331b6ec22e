"""Accuracy of the frozen graph on every test image -> frozen_accuracy.json."""

from dpuflow.accuracy.evaluation import guessing_hint
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.quantize.reading_proof import prove_reading
from dpuflow.records import read_record, write_record
from dpuflow.tfgraph.evaluate import evaluate_graph
from dpuflow.workflow.scripting import log, log_accuracy, run


def main(snakemake):
    graph, nodes = snakemake.input.graph, read_record(snakemake.input.nodes, "nodes.schema.yaml")
    record = evaluate_graph(
        "frozen",
        graph,
        nodes,
        read_dataset(snakemake.input.dataset),
        snakemake.params.input_scaling,
        threads=snakemake.threads,
        check=lambda x, outputs: prove_reading(snakemake.input.network, graph, x, outputs),
    )
    hint = guessing_hint(record, snakemake.params.input_scaling)
    write_record(
        snakemake.output.accuracy, "accuracy.schema.yaml", record | ({"warning": hint} if hint else {})
    )
    log_accuracy(record)
    if hint:
        log.warning("warning: %s", hint)


run(main, globals())
