"""Checkpoint -> frozen_graph.pb, proven against Keras -> freeze.json."""

from pathlib import Path

from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.files import read_json, write_json
from dpuflow.scripting import log, run
from dpuflow.tfgraph.freeze import compare_with_keras, freeze


def main(snakemake):
    nodes = read_json(snakemake.input.nodes)
    report = freeze(Path(snakemake.input.nodes).parent, nodes, snakemake.output.graph)
    images, _ = read_dataset(snakemake.input.dataset).subset("validation")
    report |= compare_with_keras(
        snakemake.output.graph,
        nodes,
        snakemake.input.model,
        images,
        snakemake.params.input_scaling,
        snakemake.params.tolerance,
    )
    write_json(snakemake.output.report, report)
    log.info(
        "froze %d variables into constants; largest difference to Keras %.1e over %d images",
        report["variables_frozen"],
        report["max_difference"],
        report["images_compared"],
    )


run(main, globals())
