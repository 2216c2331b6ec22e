"""What quantize_eval_model.pb (fake-quantized, stock TensorFlow) answers for every test image."""

from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.records import read_record
from dpuflow.task.measuring import stage_record
from dpuflow.tfgraph.outputs import GraphStage
from dpuflow.workflow.scripting import run
from dpuflow.workflow.stage_records import told, write_stage


def main(snakemake):
    graph, scaling = snakemake.input.graph, snakemake.params.input_scaling
    if snakemake.input.get("quantization"):
        scaling = read_record(snakemake.input.quantization, "quantization.schema.yaml")["input_scaling"]
    nodes = read_record(snakemake.input.nodes, "nodes.schema.yaml")
    stage = GraphStage(graph, nodes, scaling, threads=snakemake.threads)
    dataset = read_dataset(snakemake.input.dataset)
    record = stage_record("quantized", stage, dataset, told(snakemake.params), where=graph)
    write_stage(snakemake.output.accuracy, record)


run(main, globals())
