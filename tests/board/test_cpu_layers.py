"""Layers on the CPU: every runner gives the quantized graph's answers, from the network's input on."""

import json

import numpy as np
import pytest
from cpu_networks import CLASSES, NETWORKS, SCALING, front, images

from dpuflow.base.pixels import input_table
from dpuflow.board import bundle
from dpuflow.board.bundle import Bundle
from dpuflow.board.compare import board_record, read_board_predictions
from dpuflow.compiler.quantized_graph import quantized_graph
from dpuflow.compiler.reference import lower
from dpuflow.device.targets import get_target, load_targets
from dpuflow.dpuczdx8g.isa.runner import IsaRunner
from dpuflow.dpuczdx8g.native.compile import compile_graph
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.emulator import Emulator
from dpuflow.quantize.engine import run_integer
from dpuflow.virtual_board.run import run
from dpuflow.xir import Graph

KV260 = get_target("kv260")
DEVICES = {
    "front": ["USER", "CPU", "DPU", "CPU"],
    "middle": ["USER", "DPU", "CPU", "DPU", "CPU"],
    "end": ["USER", "DPU", "CPU"],
    "branches": ["USER", "DPU", "CPU", "DPU", "CPU", "DPU", "CPU"],
}
COMPILERS = {
    "reference": lower,
    "native": lambda quantized, target: compile_native(quantized, target, on_cpu="warn").graph,
}


def quantized_outputs(quantized, pixels):
    """int8 outputs (N, 10) of the quantized network, by the quantizer's own arithmetic."""
    batch = input_table(**SCALING, fix_point=7)[pixels]
    last = quantized.network.layers[-2].name
    return batch, np.asarray(run_integer(quantized, batch, keep=[last])[last]).reshape(-1, 10)


def make(folder, graph, quantized, count=60):
    """The bundle of a graph, its images and labels."""
    graph.save(folder / "m.xmodel")
    pixels, labels = images(quantized, count)
    bundle.build(folder / "b.tar", folder / "m.xmodel", pixels, labels, CLASSES, KV260, "test")
    return folder / "b.tar", pixels


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_runner_answers_like_the_quantized_graph(name, compiler, tmp_path):
    quantized = NETWORKS[name]()
    graph = COMPILERS[compiler](quantized, KV260)
    assert [part.device for part in graph.subgraphs()] == DEVICES[name]
    tar, pixels = make(tmp_path, graph, quantized)
    batch, expected = quantized_outputs(quantized, pixels)
    assert len(np.unique(expected)) > 20 and len(set(expected.argmax(axis=1))) > 1

    # the quantized graph as vai_c_xir takes it, the emulator, the machine code
    probabilities = Emulator(tmp_path / "m.xmodel").run(batch)
    assert np.array_equal(probabilities.argmax(axis=1), expected.argmax(axis=1))
    assert np.array_equal(Emulator(quantized_graph(quantized)).run(batch), probabilities)
    if compiler == "native":
        assert np.array_equal(IsaRunner(tmp_path / "m.xmodel").run(batch), probabilities)

    report = run(tar, tmp_path / "out", {"runs": 1, "warmup": 3, "threads": 2, "dump": 5}, KV260, batch=7)
    _, answers, outputs = read_board_predictions(tmp_path / "out" / "predictions.csv")
    assert np.array_equal(outputs, expected) and np.array_equal(answers, expected.argmax(axis=1))
    devices = [part["device"] for part in report["timing"]["parts"]]
    assert devices == DEVICES[name][1:] and all(part["median_ms"] > 0 for part in report["timing"]["parts"])
    assert set(report["timing"]["latency_by_device_ms"]) == {"CPU", "DPU"}

    record = board_record(tmp_path / "out", tar, quantized={"predictions": expected.argmax(axis=1).tolist()})
    assert record["agreement_with_quantized"]["equal"] == 60
    assert record["agreement_with_emulator"]["different_outputs"] == 0
    assert record["layers"]["first_different"] is None
    on_cpu = {op.name for part in graph.subgraphs("CPU") for op in map(graph.op, part.op_names)}
    integer = {name for name in on_cpu if graph.op(name).type.startswith(("conv2d-", "depthwise-"))}
    assert integer and integer <= set(record["layers"]["compared"])


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("seed", range(4))
def test_any_choice_of_layers_may_be_on_the_cpu(seed, compiler, tmp_path):
    """Subgraphs are cut wherever a layer leaves the DPU."""
    random = np.random.default_rng(seed)
    quantized = NETWORKS["branches"]()
    layers = [layer.name for layer in quantized.network.layers[1:-1] if layer.op != "flatten"]
    chosen = {str(name) for name in random.choice(layers, random.integers(1, len(layers)), replace=False)}
    chosen |= {name for name in layers if name.startswith("depthwise")}  # the DPU cannot run these
    graph = lower(quantized, KV260, chosen)
    if compiler == "native":
        if not graph.subgraphs("DPU"):
            return
        compile_graph(graph)
    tar, pixels = make(tmp_path, graph, quantized, 20)
    batch, expected = quantized_outputs(quantized, pixels)
    run(tar, tmp_path / "out", {"runs": 1, "warmup": 0}, KV260, batch=20)
    assert np.array_equal(read_board_predictions(tmp_path / "out" / "predictions.csv")[2], expected)
    if compiler == "native":
        found = IsaRunner(tmp_path / "m.xmodel").run(batch)
        assert np.array_equal(found, Emulator(tmp_path / "m.xmodel").run(batch))


def test_a_layer_that_is_left_out_is_noticed(tmp_path):
    """The comparison starts at the network's input, so it does not agree with a board that skips a layer."""
    quantized = front()
    tar, _ = make(tmp_path, lower(quantized, KV260), quantized)
    content = Bundle.open(tar)
    (op,) = [op for op in content.meta["parts"][1]["ops"] if op["type"] == "depthwise-conv2d-fix"]
    op["type"] = "identity"  # what the application did before: the layer's input goes on
    content.files["meta.json"] = json.dumps(content.meta).encode()
    bundle.pack(tmp_path / "skipping.tar", "kv260", content.files)
    run(tmp_path / "skipping.tar", tmp_path / "out", {"runs": 1, "warmup": 0, "dump": 0}, KV260, batch=60)
    record = board_record(tmp_path / "out", tar)
    assert record["agreement_with_emulator"]["different_outputs"] > 50
    first = record["layers"]["first_different"]
    assert (first["op"], first["type"]) == (op["name"], "depthwise-conv2d-fix")


def test_the_vendors_file_with_two_dpu_subgraphs(shared, tmp_path):
    """Its custom op, whose meaning nobody told, made an addition: all else is the vendor's."""
    path = shared("golden/vendor/zcu102_mnist_3.0.xmodel")
    graph = Graph.load(path)
    next(op for op in graph.proto.op_node if op.op_type == "Mylayer").op_type = "add"
    graph = Graph(proto=graph.proto)
    random = np.random.default_rng(8)
    pixels, labels = random.integers(0, 256, (40, 28, 28, 1), dtype=np.uint8), random.integers(0, 10, 40)
    graph.save(tmp_path / "m.xmodel")
    tar, target = tmp_path / "b.tar", get_target("zcu102")
    scaling = {"subtract": 0.0, "divide": 1.0}
    bundle.build(tar, tmp_path / "m.xmodel", pixels, labels, CLASSES, target, "test", scaling=scaling)
    meta = Bundle.open(tar).meta
    assert [part["device"] for part in meta["parts"]] == ["USER", "DPU", "CPU", "DPU", "CPU"]
    assert meta["input"]["fix_point"] == -2 and not meta["output"]["probabilities"]
    assert meta["instructions"] == sum(len(s.attrs["mc_code"]) for s in graph.subgraphs("DPU"))
    run(tar, tmp_path / "out", {"runs": 1, "warmup": 0}, target, batch=40)
    record = board_record(tmp_path / "out", tar)
    assert record["agreement_with_emulator"]["different_outputs"] == 0
    outputs = read_board_predictions(tmp_path / "out" / "predictions.csv")[2]
    logits = IsaRunner(tmp_path / "m.xmodel").logits(input_table(**scaling, fix_point=-2)[pixels])
    assert np.array_equal(outputs, logits) and len(np.unique(outputs)) > 20


@pytest.mark.parametrize(
    ("stem", "dpu", "devices"),
    [
        ("mnistdense_28_tf2_b512_2.5", "DPUCZDX8G_ISA1_B512", ["CPU", "DPU", "CPU"]),
        ("mnist_28_pt_b4096_2.5", "DPUCZDX8G_ISA1_B4096", ["DPU", "CPU"]),
    ],
)
def test_classifiers_of_other_people(stem, dpu, devices, shared, tmp_path):
    """The vendor's compiler reshapes the input of a dense first layer on the CPU, in front of the DPU."""
    path = shared(f"golden/wild/{stem}.xmodel")
    target = load_targets(extra={"t": {"dpu": dpu, "release": "2.5"}})["t"]
    random = np.random.default_rng(9)
    pixels, labels = random.integers(0, 256, (30, 28, 28, 1), dtype=np.uint8), random.integers(0, 10, 30)
    scaling = {"subtract": 0.0, "divide": 255.0}
    bundle.build(tmp_path / "b.tar", path, pixels, labels, CLASSES, target, "test", scaling=scaling)
    report = run(tmp_path / "b.tar", tmp_path / "out", {"runs": 1, "warmup": 0}, target, batch=30)
    assert [part["device"] for part in report["timing"]["parts"]] == devices
    record = board_record(tmp_path / "out", tmp_path / "b.tar")
    assert record["agreement_with_emulator"]["different_outputs"] == 0
    assert len(np.unique(read_board_predictions(tmp_path / "out" / "predictions.csv")[2])) > 20
