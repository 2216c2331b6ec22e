"""Accuracy of the trained ONNX model on every test image, by onnxruntime -> onnx_accuracy.json."""

from dpuflow.accuracy.evaluation import accuracy_record, guessing_hint
from dpuflow.base.pixels import scale_pixels
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.onnx_graph.model_file import open_model
from dpuflow.onnx_graph.runtime import OnnxModel, classes
from dpuflow.records import write_record
from dpuflow.workflow.scripting import log, log_accuracy, run


def main(snakemake):
    dataset, scaling = read_dataset(snakemake.input.dataset), snakemake.params.input_scaling
    model = OnnxModel(open_model(snakemake.input.model, dataset.shape, snakemake.params.input_node))
    predictions = dataset.through("test", lambda images: classes(model.run(scale_pixels(images, scaling))))
    labels = dataset.labels_in("test")
    record = accuracy_record("onnx", "test", labels, predictions, dataset.class_names)
    hint = guessing_hint(record, scaling)
    write_record(
        snakemake.output.accuracy, "accuracy.schema.yaml", record | ({"warning": hint} if hint else {})
    )
    log_accuracy(record)
    if hint:
        log.warning("warning: %s", hint)


run(main, globals())
