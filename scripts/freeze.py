"""Keras H5 -> checkpoint, nodes.json -> frozen_graph.pb, proven against Keras -> freeze.json, network.h5."""

from pathlib import Path

from dpuflow.base.outputs import named_ends
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.records import write_record
from dpuflow.tfgraph.checkpoint import convert
from dpuflow.tfgraph.freeze import compare_with_keras, freeze
from dpuflow.tfgraph.graph_reader import graph_to_network
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    folder = Path(snakemake.output.nodes).parent
    nodes = convert(snakemake.input.model, folder)
    write_record(snakemake.output.nodes, "nodes.schema.yaml", nodes)
    ends = ", ".join(end["name"] for end in named_ends(nodes).values())
    log.info("input node %s, output node %s", nodes["input"]["name"], ends)
    report = freeze(folder, nodes, snakemake.output.graph)
    graph_to_network(snakemake.output.graph, nodes, snakemake.params.model, snakemake.output.network)
    images = read_dataset(snakemake.input.dataset).images_in("validation")
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
