"""What the frozen graph answers for every test image -> frozen_accuracy.json."""

from dpuflow.base.pixels import scale_pixels
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.quantize.reading_proof import IMAGES, prove_reading
from dpuflow.records import read_record
from dpuflow.task.measuring import stage_record
from dpuflow.tfgraph.outputs import GraphStage
from dpuflow.workflow.scripting import run
from dpuflow.workflow.stage_records import told, write_stage


def main(snakemake):
    graph, scaling = snakemake.input.graph, snakemake.params.input_scaling
    dataset, nodes = (
        read_dataset(snakemake.input.dataset),
        read_record(snakemake.input.nodes, "nodes.schema.yaml"),
    )
    stage = GraphStage(graph, nodes, scaling, threads=snakemake.threads)
    x = scale_pixels(dataset.images_in("test")[:IMAGES], scaling)
    prove_reading(snakemake.input.network, graph, x, stage.of_scaled(x))
    record = stage_record("frozen", stage, dataset, told(snakemake.params), where=graph)
    write_stage(snakemake.output.accuracy, record, scaling)


run(main, globals())
