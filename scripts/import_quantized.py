"""A user's own quantized network, not compiled -> quantized_model.h5, evaluation graph, their records."""

from dpuflow.compiler.quantized_reading import read_quantized_graph
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.keras_models.foreign_model import check_fits
from dpuflow.quantize.kept import kept_report
from dpuflow.quantize.reference import write_artifacts
from dpuflow.records import write_record
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    dataset = read_dataset(snakemake.input.dataset)
    source = snakemake.input.get("source") or snakemake.params.source  # no input where it is missing
    quantized = read_quantized_graph(source, snakemake.params.model, snakemake.params.input_scaling)
    network, shape, classes = quantized.network, dataset.shape, len(dataset.class_names)
    inputs, outputs = ([layer.shape for layer in ends] for ends in (network.inputs, network.outputs.values()))
    check_fits(source, inputs, outputs, shape, classes)
    report, nodes = kept_report(quantized)
    output = snakemake.output
    write_artifacts(quantized, report, output.model, output.eval_graph, output.report)
    write_record(output.nodes, "nodes.schema.yaml", nodes)
    log.info("%s: %d layers, fix_points kept", source, len(network.layers))


run(main, globals())
