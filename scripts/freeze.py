"""Keras H5 -> TensorFlow checkpoint, nodes.json -> frozen_graph.pb, proven against Keras -> freeze.json."""

from pathlib import Path

from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.records import write_record
from dpuflow.tfgraph.checkpoint import convert
from dpuflow.tfgraph.freeze import compare_with_keras, freeze
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    folder = Path(snakemake.output.nodes).parent
    nodes = convert(snakemake.input.model, folder)
    write_record(snakemake.output.nodes, "nodes.schema.yaml", nodes)
    log.info("input node %s, output node %s", nodes["input"]["name"], nodes["output"]["name"])
    report = freeze(folder, nodes, snakemake.output.graph)
    images, _ = read_dataset(snakemake.input.dataset).subset("validation")
    report |= compare_with_keras(
        snakemake.output.graph,
        nodes,
        snakemake.input.model,
        images,
        snakemake.params.input_scaling,
        snakemake.params.tolerance,
    )
    write_record(snakemake.output.report, "freeze.schema.yaml", report)
    log.info(
        "froze %d variables into constants; largest difference to Keras %.1e over %d images",
        report["variables_frozen"],
        report["max_difference"],
        report["images_compared"],
    )


run(main, globals())
