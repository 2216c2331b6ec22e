"""What the trained ONNX model answers for every test image, by onnxruntime -> onnx_accuracy.json."""

from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.onnx_graph.outputs import OnnxStage
from dpuflow.task.measuring import stage_record
from dpuflow.workflow.scripting import run
from dpuflow.workflow.stage_records import told, write_stage


def main(snakemake):
    dataset, scaling = read_dataset(snakemake.input.dataset), snakemake.params.input_scaling
    ends = snakemake.params.nodes
    names = ends["input"], ends["output"]
    stage = OnnxStage(snakemake.input.model, dataset.shape, scaling, *names, own=True)
    record = stage_record("onnx", stage, dataset, told(snakemake.params), where=snakemake.input.model)
    write_stage(snakemake.output.accuracy, record, scaling)


run(main, globals())
