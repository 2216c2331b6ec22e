"""Accuracy of the frozen graph on every test image -> frozen_accuracy.json."""

from dpuflow.accuracy.evaluation import guessing_hint
from dpuflow.base.files import read_json, write_json
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.quantize.reading_proof import prove_reading
from dpuflow.tfgraph.evaluate import evaluate_graph
from dpuflow.workflow.scripting import log, log_accuracy, run


def main(snakemake):
    graph, nodes = snakemake.input.graph, read_json(snakemake.input.nodes)
    record = evaluate_graph(
        "frozen",
        graph,
        nodes,
        read_dataset(snakemake.input.dataset),
        snakemake.params.input_scaling,
        threads=snakemake.threads,
        check=lambda x, outputs: prove_reading(graph, nodes, x, outputs),
    )
    hint = guessing_hint(record, snakemake.params.input_scaling)
    write_json(snakemake.output.accuracy, record | ({"warning": hint} if hint else {}))
    log_accuracy(record)
    if hint:
        log.warning("warning: %s", hint)


run(main, globals())
