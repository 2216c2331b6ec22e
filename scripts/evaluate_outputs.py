"""Outputs that a quantized model gave for every test image -> its accuracy record."""

from dpuflow.accuracy.evaluation import accuracy_record
from dpuflow.accuracy.top import MANY_CLASSES, among_best, top_record
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.records import write_record
from dpuflow.vitis_ai.outputs import read_outputs
from dpuflow.workflow.scripting import log_accuracy, run


def main(snakemake):
    dataset = read_dataset(snakemake.input.dataset)
    labels = dataset.labels_in("test")
    outputs = read_outputs(snakemake.input.outputs, len(labels))
    record = accuracy_record("quantized", "test", labels, outputs.argmax(axis=1), dataset.class_names)
    if len(dataset.class_names) > MANY_CLASSES:
        record["top5"] = top_record(among_best(outputs, labels))
    write_record(snakemake.output.accuracy, "accuracy.schema.yaml", record)
    log_accuracy(record)


run(main, globals())
