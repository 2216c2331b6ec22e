"""Accuracy of the trained H5 on every test image -> keras_accuracy.json."""

from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.evaluation import accuracy_record
from dpuflow.files import write_json
from dpuflow.numerics import scale_pixels
from dpuflow.scripting import log_accuracy, run
from dpuflow.tensorflow_env import tensorflow
from dpuflow.training.keras_file import load_model
from dpuflow.training.prediction import predictor


def main(snakemake):
    dataset = read_dataset(snakemake.input.dataset)
    images, labels = dataset.subset("test")
    tensorflow(snakemake.threads)
    predict = predictor(load_model(snakemake.input.model))
    predictions = predict(scale_pixels(images, snakemake.params.input_scaling)).argmax(axis=1)
    record = accuracy_record("keras", "test", labels, predictions, dataset.class_names)
    write_json(snakemake.output.accuracy, record)
    log_accuracy(record)


run(main, globals())
