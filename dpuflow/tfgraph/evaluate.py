"""Accuracy of a GraphDef on a split, every image counted."""

from dpuflow.accuracy.evaluation import accuracy_record
from dpuflow.base.numerics import scale_pixels
from dpuflow.tfgraph.freeze import FrozenGraph


def evaluate_graph(stage, graph_path, nodes, dataset, input_scaling, split="test", threads=None, check=None):
    """Run a frozen or fake-quantized graph in TensorFlow and return its accuracy record.

    nodes : content of nodes.json; dataset : `datasets.dataset_file.Dataset`.
    check(x, outputs) : sees the float images and the graph's outputs; may refuse.
    """
    images, labels = dataset.subset(split)
    graph = FrozenGraph(graph_path, nodes["input"]["name"], nodes["output"]["name"], threads)
    x = scale_pixels(images, input_scaling)
    outputs = graph.run(x)
    if check is not None:
        check(x, outputs)
    return accuracy_record(stage, split, labels, outputs.argmax(axis=1), dataset.class_names)
