"""Outputs that a quantized model gave for every test image -> its accuracy record."""

from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.evaluation import accuracy_record
from dpuflow.files import write_json
from dpuflow.scripting import log_accuracy, run
from dpuflow.vitis_ai.outputs import read_outputs


def main(snakemake):
    dataset = read_dataset(snakemake.input.dataset)
    _, labels = dataset.subset("test")
    outputs = read_outputs(snakemake.input.outputs, len(labels))
    record = accuracy_record("quantized", "test", labels, outputs.argmax(axis=1), dataset.class_names)
    write_json(snakemake.output.accuracy, record)
    log_accuracy(record)


run(main, globals())
