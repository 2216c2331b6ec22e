"""Somebody's frozen graph -> frozen_graph.pb, nodes.json and network.h5, checked against the data set."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from dpuflow.base.files import atomic_path
from dpuflow.datasets.dataset_file import Dataset
from dpuflow.keras_models.foreign_model import check_fits
from dpuflow.records import write_record
from dpuflow.tfgraph.graph_def import write_graph_def
from dpuflow.tfgraph.graph_reader import graph_to_network
from dpuflow.tfgraph.open_graph import open_graph


def take_over(
    source: Path | str,
    wanted: Mapping[str, str | None],
    dataset: Dataset,
    model: str,
    outputs: Mapping[str, Path | str],
) -> list[str]:
    """Open the graph `source` for the data set's images and write what the chain reads of it.

    wanted : {"input", "output"}: names of nodes, None: discovered. model : name of the network.
    outputs : {"graph", "nodes", "network"}: paths.

    Returns what was changed and which nodes were found, in words. UserError : as `open_graph`, or a graph
    that does not fit the data set.
    """
    shape = dataset.shape
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
    write_record(outputs["nodes"], "nodes.schema.yaml", nodes | {"variables": []})
    if changes:
        write_graph_def(outputs["graph"], graph)
    else:
        with atomic_path(outputs["graph"]) as temporary:
            shutil.copyfile(source, temporary)
    graph_to_network(outputs["graph"], nodes, model, outputs["network"])
    found = f"input node {names['input']}, output node {names['output']}"
    return [*(f"changed {change}" for change in changes), found]
