"""Accuracy of quantize_eval_model.pb (fake-quantized, stock TensorFlow) on every test image."""

from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.evaluation import accuracy_record
from dpuflow.files import read_json, write_json
from dpuflow.numerics import scale_pixels
from dpuflow.scripting import log_accuracy, run
from dpuflow.tfgraph.freeze import FrozenGraph


def main(snakemake):
    dataset = read_dataset(snakemake.input.dataset)
    images, labels = dataset.subset("test")
    nodes = read_json(snakemake.input.nodes)
    graph = FrozenGraph(
        snakemake.input.graph, nodes["input"]["name"], nodes["output"]["name"], snakemake.threads
    )
    predictions = graph.run(scale_pixels(images, snakemake.params.input_scaling)).argmax(axis=1)
    record = accuracy_record("quantized", "test", labels, predictions, dataset.class_names)
    write_json(snakemake.output.accuracy, record)
    log_accuracy(record)


run(main, globals())
