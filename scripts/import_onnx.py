"""A user's own ONNX model -> trained_model.onnx, network.h5, frozen_graph.pb, nodes.json, proven equal."""

from dataclasses import replace

import numpy as np

from dpuflow.base.last_bits import nudge
from dpuflow.base.pixels import scale_pixels
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.keras_models.foreign_model import check_fits
from dpuflow.network.ends import named_layers
from dpuflow.network.network_file import save_network
from dpuflow.onnx_graph.heads import cut_at_heads, cut_at_scores
from dpuflow.onnx_graph.model_file import open_model, write_model
from dpuflow.onnx_graph.number_types import check_of_bytes
from dpuflow.onnx_graph.reader import read_onnx_and_layouts
from dpuflow.onnx_graph.runtime import OnnxModel
from dpuflow.quantize.reading_proof import IMAGES, largest_difference
from dpuflow.records import write_record
from dpuflow.tfgraph.network_graph import write_network_graph
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    dataset = read_dataset(snakemake.input.dataset)
    source = snakemake.input.get("source") or snakemake.params.source  # no input where it is missing
    ends = snakemake.params.nodes
    output = ends["output"]
    if output is None and (ends.get("heads") or dataset.task == "segmentation"):
        output = cut_at_heads(source) if ends.get("heads") else cut_at_scores(source)
        if output:
            log.info("%s: cut in front of its decoding or ArgMax, at %s", source, ", ".join(output))
    opened = open_model(source, dataset.shape, ends["input"], output)
    check_of_bytes(source, opened.takes_bytes, snakemake.params.input_scaling)
    network, layouts = read_onnx_and_layouts(opened, dataset.shape, snakemake.params.model)
    shapes = {name: layer.shape for name, layer in named_layers(network).items()}
    inputs, classes = [network.input.shape], len(dataset.class_names)
    check_fits(source, inputs, shapes, dataset.shape, classes, snakemake.params.get("answer"))
    write_model(snakemake.output.model, opened)
    opened = replace(opened, model=None)  # its weights are in the file, in the network, and soon in a session
    save_network(snakemake.output.network, network)
    nodes = write_network_graph(snakemake.output.graph, network)
    write_record(snakemake.output.nodes, "nodes.schema.yaml", nodes)
    x = scale_pixels(dataset.images_in("validation")[:IMAGES], snakemake.params.input_scaling)
    model = OnnxModel(opened, snakemake.output.model)
    answers, nudged = (
        {name: layout.arranged(found[name]) for name, layout in layouts.items()}
        for found in (model.run_all(x), model.run_all(nudge(x, np.random.default_rng(0))))
    )
    tolerance = snakemake.params.tolerance
    difference = largest_difference(network, x, answers, source, "onnxruntime", tolerance, nudged)
    log.info(
        "%s: input %s, output %s; %d layers; differs from onnxruntime by %.1e at most over %d images",
        source,
        opened.input,
        ", ".join(opened.outputs.values()),
        len(network.layers),
        difference,
        len(x),
    )


run(main, globals())
