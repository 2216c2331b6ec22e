"""torchvision's networks with random weights as ONNX files, by both of PyTorch's exporters."""

import contextlib
import io
import logging
import warnings
from pathlib import Path

EXPORTERS = ("TorchScript", "dynamo")
MORE = {"googlenet": {"aux_logits": False, "init_weights": False}}
"""Arguments of networks beside the number of classes."""


def torchvision():
    """The module; where its compiled part is made for another PyTorch (without GPU), without that part."""
    import torch

    warnings.filterwarnings("ignore")
    try:
        import torchvision
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        torchvision_libraries.append(library)
        import torchvision
    return torchvision


torchvision_libraries: list = []
"""Definitions live as long as their libraries."""


def random_network(name: str, size: int, classes: int = 10, seed: int = 1):
    """A network of torchvision in inference; its batch norms have seen noise, so signals keep their size."""
    import torch

    models = torchvision().models
    torch.manual_seed(seed)
    network = getattr(models, name)(weights=None, num_classes=classes, **MORE.get(name, {}))
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean of what it sees
    if norms:
        network.train()
        with torch.no_grad():
            for _ in range(2):
                network(torch.randn(4, 3, size, size))
    return network.eval()


def export(network, size: int, path: Path | str, exporter: str) -> None:
    """Write an ONNX file with an open batch."""
    import torch

    x = (torch.zeros(1, 3, size, size),)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        if exporter == "TorchScript":
            axes = {"input": {0: "N"}, "logits": {0: "N"}}
            names = {"input_names": ["input"], "output_names": ["logits"]}
            torch.onnx.export(network, x, str(path), dynamo=False, dynamic_axes=axes, **names)
        else:
            # a batch of one and one that is not: the exporter takes 1 for a constant
            shapes = ({0: torch.export.Dim("N")},)
            example = (torch.zeros(2, 3, size, size),)
            torch.onnx.export(network, example, str(path), dynamo=True, dynamic_shapes=shapes)
