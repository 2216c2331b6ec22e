"""A user's own frozen graph -> frozen_graph.pb, nodes.json and network.h5, checked against the data set."""

import shutil

from dpuflow.base.files import atomic_path
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.keras_models.foreign_model import check_fits
from dpuflow.records import write_record
from dpuflow.tfgraph.graph_def import write_graph_def
from dpuflow.tfgraph.graph_reader import graph_to_network
from dpuflow.tfgraph.open_graph import open_graph
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    dataset = read_dataset(snakemake.input.dataset)
    source = snakemake.input.get("source") or snakemake.params.source  # no input where it is missing
    shape = dataset.shape
    wanted = snakemake.params.nodes
    graph, network, names, changes = open_graph(source, wanted["input"], wanted["output"], shape)
    shapes = {"input": network.input.shape, "output": network.output.shape}
    check_fits(source, [shapes["input"]], [shapes["output"]], shape, len(dataset.class_names))
    nodes = {
        end: {
            "name": names[end],
            "tensor": f"{names[end]}:0",
            "shape": [None, *shapes[end]],
            "dtype": "float32",
        }
        for end in ("input", "output")
    }
    write_record(snakemake.output.nodes, "nodes.schema.yaml", nodes | {"variables": []})
    if changes:
        write_graph_def(snakemake.output.graph, graph)
    else:
        with atomic_path(snakemake.output.graph) as temporary:
            shutil.copyfile(source, temporary)
    graph_to_network(snakemake.output.graph, nodes, snakemake.params.model, snakemake.output.network)
    for change in changes:
        log.info("changed %s", change)
    log.info("%s: input node %s, output node %s", source, names["input"], names["output"])


run(main, globals())
