"""A user's own frozen graph -> frozen_graph.pb, nodes.json and network.h5, checked against the data set."""

from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.tfgraph.take_over import take_over
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    dataset = read_dataset(snakemake.input.dataset)
    source = snakemake.input.get("source") or snakemake.params.source  # no input where it is missing
    outputs = {key: snakemake.output[key] for key in ("graph", "nodes", "network")}
    params = snakemake.params
    for note in take_over(source, params.nodes, dataset, params.model, outputs, params.get("answer")):
        log.info("%s: %s", source, note)


run(main, globals())
