"""Accuracy of the trained H5 on every test image -> keras_accuracy.json."""

from dpuflow.accuracy.evaluation import accuracy_record, guessing_hint
from dpuflow.base.pixels import scale_pixels
from dpuflow.base.tensorflow_env import tensorflow
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.keras_models.keras_file import load_model
from dpuflow.keras_models.prediction import predictor
from dpuflow.records import write_record
from dpuflow.workflow.scripting import log, log_accuracy, run


def main(snakemake):
    dataset = read_dataset(snakemake.input.dataset)
    labels = dataset.labels_in("test")
    tensorflow(snakemake.threads)
    predict = predictor(load_model(snakemake.input.model))
    scaling = snakemake.params.input_scaling
    outputs = dataset.through("test", lambda images: predict(scale_pixels(images, scaling)))
    predictions = outputs.argmax(axis=1)
    record = accuracy_record("keras", "test", labels, predictions, dataset.class_names)
    hint = guessing_hint(record, snakemake.params.input_scaling)
    write_record(
        snakemake.output.accuracy, "accuracy.schema.yaml", record | ({"warning": hint} if hint else {})
    )
    log_accuracy(record)
    if hint:
        log.warning("warning: %s", hint)


run(main, globals())
