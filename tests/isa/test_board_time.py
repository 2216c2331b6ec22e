"""Estimates against published measurements on boards: errors of the layers, of our code, of the vendor's."""

import json
import statistics

import numpy as np
import pytest

from dpuflow.compiler.reference import lower
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.cost_model import estimate, io_bytes
from dpuflow.dpuczdx8g.isa.code import decode
from dpuflow.dpuczdx8g.isa.cycles import schedule
from dpuflow.dpuczdx8g.isa.program import read_programs
from dpuflow.dpuczdx8g.native.compile import compile_graph
from dpuflow.dpuczdx8g.timing import figures
from dpuflow.network import QuantizedNetwork
from dpuflow.ops.convolution import Weighted
from dpuflow.xir import Graph
from tests.compiler import shaped_networks as shaped

MEDIAN, GREATEST = 0.12, 0.30
NETWORKS = {
    "mobilenet_v1_0.25_128": shaped.mobile_quarter,
    "mobilenet_v1_1.0_224": lambda: shaped.mobile(1.0, 224),
    "resnet50_224": shaped.residual_50,
    "resnet18_224": shaped.residual_18,
    "squeezenet_1.1_224": shaped.squeeze,
    "vgg16_224": shaped.vgg_16,
}


def errors(measured, estimates):
    """Relative errors of frames per second with one thread and many, and of a call from Python.

    estimates : board -> figures, as compile.json has them.
    """
    found = []
    for board, (one, many) in measured["fps"].items():
        frames = estimates[board]["frames_per_second"]
        found += [frames["one_thread"] / one - 1, frames["board"] / many - 1]
    if "kv260_ms" in measured:
        found.append(estimates["kv260"]["latency_us"] / 1e3 / measured["kv260_ms"] - 1)
    return found


def of_code(programs, sizes, boards):
    """{board: figures} of machine code."""
    made = {}
    for board in boards:
        target = get_target(board).board
        times = [sum(schedule(p, cores=n).cycles for p in programs) for n in (1, target.cores)]
        made[board] = figures(*(t / target.clock_mhz for t in times), target.cores, *sizes)
    return made


def judge(found):
    sizes = [abs(error) for error in found]
    assert statistics.median(sizes) <= MEDIAN and max(sizes) <= GREATEST, np.round(found, 2)


@pytest.fixture(scope="module")
def measured(shared):
    return json.loads(shared("facts/measured-boards.json").read_text())


def test_before_compiling(measured):
    found = []
    for name, network in NETWORKS.items():
        boards = measured[name]["fps"]
        found += errors(measured[name], {board: estimate(network(), get_target(board)) for board in boards})
    assert len(found) == 6 * 6 + 5
    judge(found)


def quantized(network):
    """With weights of ones: machine code leaves out channel groups of zeros, and asks no more of them."""
    weights, biases = {}, {}
    for layer in network.layers:
        if isinstance(layer.operator, Weighted):
            shape = layer.operator.weights_shape(network[layer.inputs[0]].shape, layer.shape)
            weights[layer.name] = np.ones(shape, np.int8), 6
            biases[layer.name] = np.zeros(layer.shape[-1], np.int8), 8
    fix_points = {layer.name: 4 for layer in network.layers}
    return QuantizedNetwork(network, fix_points, weights, biases, {"subtract": 0.0, "divide": 1.0})


@pytest.mark.parametrize("name", ["mobilenet_v1_0.25_128", "squeezenet_1.1_224"])
def test_of_our_code(measured, name):
    """What was published ran the vendor's code: ours may be faster."""
    network = NETWORKS[name]()
    graph = lower(quantized(network), get_target("kv260"))
    compile_graph(graph)
    code = [decode(program.code) for program in read_programs(graph)]
    made = of_code(code, io_bytes(network), measured[name]["fps"])
    found = errors(measured[name], made)
    assert min(found[:-1]) > -MEDIAN and max(map(abs, found)) <= GREATEST
    layers = estimate(network, get_target("kv260"))
    assert made["kv260"]["latency_us"] == pytest.approx(layers["latency_us"], rel=0.25)


def test_of_the_vendors_code(measured, shared):
    graph = Graph.load(shared("golden/wild/mobilenetv2_224_pt_b4096_3.5.xmodel"))
    code = [decode(program.code) for program in read_programs(graph)]
    entry = measured["mobilenet_v2_1.0_224"]
    found = errors(entry, of_code(code, (224 * 224 * 3, 1000), entry["fps"]))
    judge(found)
    assert max(map(abs, found)) < 0.1
