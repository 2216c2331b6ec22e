"""Accuracy of quantize_eval_model.pb (fake-quantized, stock TensorFlow) on every test image."""

from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.records import read_record, write_record
from dpuflow.tfgraph.evaluate import evaluate_graph
from dpuflow.workflow.scripting import log_accuracy, run


def main(snakemake):
    scaling = snakemake.params.input_scaling
    if snakemake.input.get("quantization"):
        scaling = read_record(snakemake.input.quantization, "quantization.schema.yaml")["input_scaling"]
    record = evaluate_graph(
        "quantized",
        snakemake.input.graph,
        read_record(snakemake.input.nodes, "nodes.schema.yaml"),
        read_dataset(snakemake.input.dataset),
        scaling,
        threads=snakemake.threads,
    )
    write_record(snakemake.output.accuracy, "accuracy.schema.yaml", record)
    log_accuracy(record)


run(main, globals())
