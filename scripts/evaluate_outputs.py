"""Outputs that a quantized model gave for every test image -> its accuracy record."""

from dpuflow.accuracy.evaluation import accuracy_record
from dpuflow.base.files import write_json
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.vitis_ai.outputs import read_outputs
from dpuflow.workflow.scripting import log_accuracy, run


def main(snakemake):
    dataset = read_dataset(snakemake.input.dataset)
    _, labels = dataset.subset("test")
    outputs = read_outputs(snakemake.input.outputs, len(labels))
    record = accuracy_record("quantized", "test", labels, outputs.argmax(axis=1), dataset.class_names)
    write_json(snakemake.output.accuracy, record)
    log_accuracy(record)


run(main, globals())
