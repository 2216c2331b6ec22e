"""Somebody's frozen graph -> frozen_graph.pb, nodes.json and network.h5, checked against the data set."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpuflow.base.files import atomic_path
from dpuflow.base.outputs import ONLY, ends_of, node_entry
from dpuflow.base.protobuf_seal import seal_file
from dpuflow.datasets.dataset_file import Dataset
from dpuflow.keras_models.foreign_model import check_fits
from dpuflow.records import write_record
from dpuflow.tfgraph.graph_reader import graph_to_network
from dpuflow.tfgraph.node_order import split_reference
from dpuflow.tfgraph.open_graph import open_graph


def take_over(
    source: Path | str,
    wanted: Mapping[str, Any],
    dataset: Dataset,
    model: str,
    outputs: Mapping[str, Path | str],
    answer: str | None = None,
) -> list[str]:
    """Open the graph `source` for the data set's images and write what the chain reads of it.

    wanted : {"input": name of a node, "output": a name, a list of them or {output's name: name of a node}};
    None: discovered. model : name of the network. outputs : {"graph", "nodes", "network"}: paths.
    answer : as for `foreign_model.check_fits`.

    Returns what was changed and which nodes were found, in words. UserError : as `open_graph`, or a graph
    that does not fit the data set.
    """
    shape, given = dataset.shape, wanted["output"]
    named = (
        {name: split_reference(node)[0] for name, node in given.items()} if isinstance(given, Mapping) else {}
    )
    output_nodes = list(dict.fromkeys(named.values())) or given
    graph, network, names, changes = open_graph(source, wanted["input"], output_nodes, shape)
    layers = network.outputs
    if len(layers) == 1:
        layers = {names["output"]: network.output}
    named = named or {node: node for node in layers}
    entries = {name: node_entry(node, layers[node].shape) for name, node in named.items()}
    if len(entries) == 1:
        entries = {ONLY: next(iter(entries.values()))}
    ends = {name: entry["shape"][1:] for name, entry in entries.items()}
    check_fits(
        source, [layer.shape for layer in network.inputs], ends, shape, len(dataset.class_names), answer
    )
    nodes = {"input": node_entry(names["input"], network.input.shape), **ends_of(entries)}
    write_record(outputs["nodes"], "nodes.schema.yaml", nodes | {"variables": []})
    if changes:
        graph.write(outputs["graph"])
    else:
        with atomic_path(outputs["graph"]) as temporary:
            shutil.copyfile(source, temporary)
            seal_file(temporary)
    del network, layers  # a second one is read now
    graph_to_network(outputs["graph"], nodes, model, outputs["network"])
    shown = ", ".join(entry["name"] for entry in entries.values())
    found = f"input node {names['input']}, output node{'s' * (len(entries) > 1)} {shown}"
    return [*(f"changed {change}" for change in changes), found]
