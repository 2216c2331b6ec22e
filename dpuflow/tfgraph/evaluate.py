"""Accuracy of a GraphDef on a split, every image counted."""

from dpuflow.accuracy.evaluation import accuracy_record
from dpuflow.base.numerics import scale_pixels
from dpuflow.tfgraph.freeze import FrozenGraph


def evaluate_graph(stage, graph_path, nodes, dataset, input_scaling, split="test", threads=None):
    """Run a frozen or fake-quantized graph in TensorFlow and return its accuracy record.

    nodes : content of nodes.json; dataset : `datasets.dataset_file.Dataset`.
    """
    images, labels = dataset.subset(split)
    graph = FrozenGraph(graph_path, nodes["input"]["name"], nodes["output"]["name"], threads)
    predictions = graph.run(scale_pixels(images, input_scaling)).argmax(axis=1)
    return accuracy_record(stage, split, labels, predictions, dataset.class_names)
