"""A user's own quantized network, not compiled -> quantized_model.h5, evaluation graph, their records."""

from dpuflow.compiler.quantized_reading import quantized_network
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.keras_models.foreign_model import check_fits
from dpuflow.network.ends import named_layers
from dpuflow.onnx_graph.qdq import qdq_graph
from dpuflow.quantize.kept import kept_report
from dpuflow.quantize.reference import write_artifacts
from dpuflow.records import write_record
from dpuflow.workflow.scripting import log, run
from dpuflow.xir import Graph


def main(snakemake):
    dataset = read_dataset(snakemake.input.dataset)
    source = snakemake.input.get("source") or snakemake.params.source  # no input where it is missing
    onnx = str(source).endswith(".onnx")
    graph, notes = qdq_graph(source) if onnx else (Graph.load(source), [])
    quantized = quantized_network(source, graph, snakemake.params.model, snakemake.params.input_scaling)
    network, shape, classes = quantized.network, dataset.shape, len(dataset.class_names)
    outputs = {name: layer.shape for name, layer in named_layers(network).items()}
    inputs = [layer.shape for layer in network.inputs]
    check_fits(source, inputs, outputs, shape, classes, snakemake.params.get("answer"))
    report, nodes = kept_report(quantized)
    output = snakemake.output
    write_artifacts(quantized, report, output.model, output.eval_graph, output.report)
    write_record(output.nodes, "nodes.schema.yaml", nodes)
    for note in notes:
        log.warning("%s: %s", source, note)
    log.info("%s: %d layers, fix_points kept", source, len(network.layers))


run(main, globals())
