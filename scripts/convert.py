"""Keras H5 -> TensorFlow checkpoint, tf_complete_model.pb and nodes.json."""

from pathlib import Path

from dpuflow.files import write_json
from dpuflow.scripting import log, run
from dpuflow.tfgraph.checkpoint import convert


def main(snakemake):
    nodes = convert(snakemake.input.model, Path(snakemake.output.nodes).parent)
    write_json(snakemake.output.nodes, nodes)
    log.info("input node %s, output node %s", nodes["input"]["name"], nodes["output"]["name"])


run(main, globals())
