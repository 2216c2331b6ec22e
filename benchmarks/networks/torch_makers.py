"""Networks of torchvision through ONNX: random weights, calibrated batch norms."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.networks.images import scaled
from dpuflow.onnx_graph.model_file import open_model
from dpuflow.onnx_graph.reader import read_onnx

SEED, PICTURES = 1, 4


@dataclass(frozen=True)
class TorchMaker:
    """A function that builds a PyTorch module, and where it comes from."""

    kind: str
    build: Callable[[], Any]
    size: int = 224

    def network(self, folder):
        """The network as the chain reads it from the exported ONNX file."""
        import torch

        torch.manual_seed(SEED)
        torch.set_num_threads(2)
        module = self.build()
        norms = [m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
        module.train()
        with torch.no_grad():
            images = scaled((self.size, self.size, 3), PICTURES).transpose(0, 3, 1, 2)
            module(torch.from_numpy(images.copy()))
        module.eval()
        path = folder / "network.onnx"
        torch.onnx.export(
            module, (torch.zeros(1, 3, self.size, self.size),), str(path), opset_version=17, dynamo=False
        )
        shape = (self.size, self.size, 3)
        return read_onnx(open_model(path, shape), shape, "network")


def _torchvision(name, size=224):
    def build():
        # the package of the benchmarks' scripts, which knows how to import torchvision here
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
        import torch_networks

        models, more = torch_networks.torchvision().models, {}
        if name in ("googlenet", "inception_v3"):
            more = {"aux_logits": False, "init_weights": False}
        return getattr(models, name)(weights=None, **more)

    return TorchMaker("torchvision through ONNX", build, size)


CLASSIFIERS = {
    f"{name} (torch)": _torchvision(name, 299 if name == "inception_v3" else 224)
    for name in (
        *(
            "resnet18",
            "resnet50",
            "mobilenet_v2",
            "mobilenet_v3_small",
            "shufflenet_v2_x1_0",
            "squeezenet1_1",
        ),
        *("mnasnet1_0", "googlenet", "regnet_y_400mf", "densenet121", "efficientnet_b0", "inception_v3"),
        *("resnext50_32x4d", "wide_resnet50_2", "alexnet"),
    )
}
