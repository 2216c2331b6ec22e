"""PyTorch's networks: the lines of docs/onnx.md export them, and they come to the same values and to code."""

import re
import sys

import numpy as np
import pytest

from dpuflow.base.outputs import ONLY
from dpuflow.base.pixels import scale_pixels
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.isa.runner import IsaRunner
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.emulator import Emulator
from dpuflow.onnx_graph.model_file import open_model
from dpuflow.onnx_graph.reader import read_onnx
from dpuflow.onnx_graph.runtime import OnnxModel
from dpuflow.quantize.reading_proof import largest_difference
from dpuflow.quantize.reference import quantize

SHAPE = (64, 64, 3)
SCALING = {"subtract": 127.5, "divide": 64}
SETTINGS = {"diagnosis": False, "position_search": {"criterion": None}, "fast_finetune": False}


@pytest.fixture(scope="module")
def torch_networks(repo):
    """The module of the benchmarks that makes networks of torchvision."""
    sys.path.insert(0, str(repo / "benchmarks"))
    try:
        import torch_networks
    finally:
        sys.path.pop(0)
    return torch_networks


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).integers(0, 256, (8, *SHAPE), np.uint8)


def proven(path, images, shape=SHAPE):
    """The Network of an ONNX file, which gives what onnxruntime gives."""
    opened = open_model(path, shape)
    network = read_onnx(opened, shape, "net")
    x = scale_pixels(images[:3], SCALING)
    answers = OnnxModel(opened).run(x)
    assert np.ptp(answers) > 1e-2
    assert largest_difference(network, x, {ONLY: answers}, path, "onnxruntime", 1e-4) < 1e-4
    return network


@pytest.mark.parametrize("dynamo", [False, True])
def test_the_recipe_of_the_page_exports_a_network(repo, dynamo, tmp_path, monkeypatch):
    import torch

    text = (repo / "docs/onnx.md").read_text()
    block = re.search(r"```python\n(torch\.onnx\.export.*?)```", text, re.DOTALL)
    inline = re.search(r"`(torch\.onnx\.export\([^`]*dynamo=True\))`", text)
    torch.manual_seed(2)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=4, padding=1),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU6(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Dropout(0.5),
        torch.nn.Linear(8 * 28 * 28, 5),
    )
    monkeypatch.chdir(tmp_path)
    exec((inline if dynamo else block)[1], {"torch": torch, "net": net})
    pictures = np.random.default_rng(4).integers(0, 256, (3, 224, 224, 3), np.uint8)
    network = proven(tmp_path / "my_network.onnx", pictures, (224, 224, 3))
    assert {layer.op for layer in network.layers} <= {
        *("input", "conv", "batch_norm", "relu6", "max_pool", "flatten", "dense"),
    }


@pytest.mark.slow
def test_a_network_of_torchvision_comes_to_machine_code(torch_networks, images, tmp_path):
    network = torch_networks.random_network("squeezenet1_1", 64)
    for exporter in torch_networks.EXPORTERS:
        torch_networks.export(network, 64, tmp_path / "m.onnx", exporter)
        read = proven(tmp_path / "m.onnx", images)
        assert sum(layer.op == "concat" for layer in read.layers) == 8
    quantized, _ = quantize(read, images, SETTINGS, SCALING)
    compiled = compile_native(quantized, get_target("kv260"), calibration=images)  # proves its code
    emulator, runner = Emulator(compiled.graph), IsaRunner(compiled.graph)
    batch = emulator.quantize_input(images[:1])
    np.testing.assert_array_equal(emulator.run(batch), runner.run(batch))


@pytest.mark.slow
def test_a_network_of_shuffled_channels_is_read(torch_networks, images, tmp_path):
    network = torch_networks.random_network("shufflenet_v2_x0_5", 64)
    torch_networks.export(network, 64, tmp_path / "m.onnx", "TorchScript")
    ops = {layer.op for layer in proven(tmp_path / "m.onnx", images).layers}
    assert ops == {
        *("input", "conv", "depthwise_conv", "relu", "concat", "max_pool", "avg_pool", "flatten", "dense"),
    }
