"""Networks of torchvision, and YOLO-like ones, through ONNX: random weights, calibrated batch norms."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
            module(torch.rand(PICTURES, 3, self.size, self.size) * 2 - 1)
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


def _yolo(split):
    """A backbone with CSP blocks (v8: C2f's split), SPPF, a path up and down, three heads; at 320 x 320."""

    def build():
        import torch
        from torch import nn

        class Conv(nn.Sequential):
            def __init__(self, c1, c2, k=1, s=1):
                convolution = nn.Conv2d(c1, c2, k, s, k // 2, bias=False)
                super().__init__(convolution, nn.BatchNorm2d(c2), nn.LeakyReLU(26 / 256))

        class Block(nn.Module):
            def __init__(self, c1, c2, n=1, shortcut=True):
                super().__init__()
                self.half, self.shortcut = c2 // 2, shortcut
                self.first = Conv(c1, c2)
                self.steps = nn.ModuleList(
                    nn.Sequential(Conv(self.half, self.half, 3), Conv(self.half, self.half, 3))
                    for _ in range(n)
                )
                self.last = Conv((2 + n) * self.half, c2)

            def forward(self, x):
                x = self.first(x)
                parts = list(x.chunk(2, 1)) if split else [x[:, : self.half], x[:, self.half :]]
                for step in self.steps:
                    y = step(parts[-1])
                    parts.append(parts[-1] + y if self.shortcut else y)
                return self.last(torch.cat(parts, 1))

        class Yolo(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem = nn.Sequential(Conv(3, 16, 6 if not split else 3, 2), Conv(16, 32, 3, 2))
                self.low = nn.Sequential(Block(32, 32), Conv(32, 64, 3, 2), Block(64, 64, 2))
                self.mid = nn.Sequential(Conv(64, 128, 3, 2), Block(128, 128, 2))
                self.high = nn.Sequential(Conv(128, 256, 3, 2), Block(256, 256))
                self.before, self.pool, self.after = Conv(256, 128), nn.MaxPool2d(5, 1, 2), Conv(512, 256)
                self.up = nn.Upsample(scale_factor=2)
                self.a, self.b = Block(384, 128, 1, False), Block(192, 64, 1, False)
                self.down = nn.ModuleList([Conv(64, 64, 3, 2), Conv(128, 128, 3, 2)])
                self.c, self.d = Block(192, 128, 1, False), Block(384, 256, 1, False)
                self.heads = nn.ModuleList(nn.Conv2d(c, 144, 1) for c in (64, 128, 256))

            def forward(self, x):
                low = self.low(self.stem(x))
                mid = self.mid(low)
                parts = [self.before(self.high(mid))]
                for _ in range(3):
                    parts.append(self.pool(parts[-1]))
                high = self.after(torch.cat(parts, 1))
                a = self.a(torch.cat([self.up(high), mid], 1))
                b = self.b(torch.cat([self.up(a), low], 1))
                c = self.c(torch.cat([self.down[0](b), a], 1))
                d = self.d(torch.cat([self.down[1](c), high], 1))
                return [head(y) for head, y in zip(self.heads, (b, c, d), strict=True)]

        return Yolo()

    return TorchMaker("Detection", build, 320)


def _unet():
    """A U with bilinear upsampling (align_corners False) at 256 x 256."""
    import torch
    from torch import nn

    def double(c1, c2):
        return nn.Sequential(
            *(nn.Conv2d(c1, c2, 3, 1, 1, bias=False), nn.BatchNorm2d(c2), nn.ReLU()),
            *(nn.Conv2d(c2, c2, 3, 1, 1, bias=False), nn.BatchNorm2d(c2), nn.ReLU()),
        )

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = double(3, 32), double(32, 64), double(64, 128)
            self.d, self.e = double(192, 64), double(96, 32)
            self.pool, self.out = nn.MaxPool2d(2), nn.Conv2d(32, 2, 1)
            self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)

        def forward(self, x):
            a = self.a(x)
            b = self.b(self.pool(a))
            c = self.c(self.pool(b))
            d = self.d(torch.cat([self.up(c), b], 1))
            return self.out(self.e(torch.cat([self.up(d), a], 1)))

    return UNet()


OTHERS = {
    "YOLOv5n-like (torch)": _yolo(False),
    "YOLOv8n-like (torch)": _yolo(True),
    "UNet, bilinear (torch)": TorchMaker("Segmentation", _unet, 256),
}
