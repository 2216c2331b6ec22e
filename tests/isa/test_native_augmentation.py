"""First layers with channel augmentation and padding: masked LOADs, the input behind a margin."""

import json

import numpy as np
import pytest
from test_native_xmodel import SIZES, Builder, images

from dpuflow.compiler.reference import lower
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.isa.assembly import format_instruction
from dpuflow.dpuczdx8g.isa.code import decode
from dpuflow.dpuczdx8g.isa.program import read_programs
from dpuflow.dpuczdx8g.isa.runner import IsaRunner
from dpuflow.dpuczdx8g.isa.simulator import Simulator
from dpuflow.dpuczdx8g.native.compile import compile_graph
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.emulator import Emulator
from dpuflow.xir import Graph


def first_layer(shape, kernel, stride, pad, channels=9, seed=0, leaky=False):
    """A network of one convolution: kernel and stride (w, h), pad (left, right, top, bottom)."""
    (height, width, inputs), (left, right, top, bottom) = shape, pad
    out_h = (height + top + bottom - kernel[1]) // stride[1] + 1
    out_w = (width + left + right - kernel[0]) // stride[0] + 1
    b = Builder(shape, seed)
    x = b.layer(
        "conv", ["input"], (out_h, out_w, channels), 4, (channels, kernel[1], kernel[0], inputs),
        activation="LEAKYRELU" if leaky else "NONE", kernel=kernel, stride=stride, dilation=(1, 1), pad=pad,
    )  # fmt: skip
    return b.quantized("first", x)


def same(size, kernel, stride):
    """TensorFlow's SAME padding of one dimension: (before, after)."""
    total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    return total // 2, total - total // 2


def compiled(network, size):
    """(graph, first LOAD of the input, first CONVINIT) on a DPU size, bit-equal to the emulator."""
    graph = compile_native(network, get_target(f"DPUCZDX8G_ISA1_{size}")).graph
    runner = IsaRunner(graph)
    batch = images(graph, 3)
    expected = Emulator(graph).run(batch)
    assert len(np.unique(expected)) > 20
    for order in (None, 1):
        np.testing.assert_array_equal(runner.run(batch, interleave=order), expected)
    (simulator,) = runner.simulators.values()
    code = [step.instruction for step in simulator.steps]
    load = next(op for op in code if op.name == "LOAD" and op["reg_id"] == 2)
    return graph, load, next(op for op in code if op.name == "CONVINIT")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("shape", "kernel", "stride"),
    [
        ((28, 28, 1), (3, 3), (1, 1)),
        ((15, 20, 3), (3, 3), (2, 2)),  # SAME pads 1, 1 above and below, 0, 1 beside
        ((12, 13, 1), (5, 5), (2, 1)),
        ((9, 11, 1), (7, 7), (1, 1)),
        ((11, 9, 3), (5, 3), (1, 2)),
        ((10, 7, 3), (7, 3), (1, 1)),  # too wide for the small sizes
    ],
)
def test_same_padding_on_every_size(size, shape, kernel, stride):
    pad = (*same(shape[1], kernel[0], stride[0]), *same(shape[0], kernel[1], stride[1]))
    target = get_target(f"DPUCZDX8G_ISA1_{size}")
    graph, load, init = compiled(first_layer(shape, kernel, stride, pad), size)
    folded = kernel[0] * shape[2]
    if folded > target.channel_augmentation:
        assert "channel_augmentation" not in graph.op("conv1").attrs
        assert (load["channel"], init["kernel_w"], load["pad_start"], load["pad_end"]) == (
            shape[2],
            kernel[0],
            0,
            0,
        )
        return
    assert graph.op("conv1").attrs["channel_augmentation"] == 1
    assert (init["kernel_w"], init["kernel_h"], init["stride_w"]) == (1, kernel[1], 1)
    assert (load["channel"], load["jump_read"]) == (folded, stride[0] * shape[2])
    assert load["pad_start"] == pad[0] * shape[2]


@pytest.mark.parametrize("seed", range(24))
def test_random_padded_first_layers(seed):
    """Any padding below the kernel's size on any side, strides up to the kernel, maps narrower than it."""
    random = np.random.default_rng(seed)
    size = SIZES[seed % len(SIZES)]
    target = get_target(f"DPUCZDX8G_ISA1_{size}")
    inputs = int(random.choice([1, 1, 2, 3, 4]))
    widest = min(16, target.channel_augmentation // inputs)
    kernel = (int(random.integers(2, widest + 1)), int(random.integers(1, 8)))
    stride = (int(random.integers(1, min(kernel[0], 8) + 1)), int(random.integers(1, 4)))
    pad = tuple(int(random.integers(0, k)) for k in (kernel[0], kernel[0], kernel[1], kernel[1]))
    shape = (
        max(int(random.integers(1, 40)), kernel[1] - pad[2] - pad[3]),
        max(int(random.integers(1, 40)), kernel[0] - pad[0] - pad[1]),
        inputs,
    )
    network = first_layer(shape, kernel, stride, pad, int(random.choice([3, 17, 40])), seed, seed % 3 == 0)
    compiled(network, size)


def test_rows_in_tiles_of_columns():
    """YOLOv5's first layer: 320 windows of two entries per row come in two LOADs, masked at the ends."""
    graph, _, _ = compiled(first_layer((24, 640, 3), (6, 6), (2, 2), (2, 2, 2, 2), 16), "B4096")
    (program,) = read_programs(graph)
    loads = [op for op in decode(program.code) if op.name == "LOAD" and op["reg_id"] == 2]
    found = {(op["length"], op["pad_start"], op["pad_end"], op["pad_idx"]) for op in loads}
    assert found == {(160, 6, 0, 1), (160, 0, 14 + 6, 1)}


def test_several_readers_of_the_input_share_the_greatest_margin():
    b = Builder((21, 26, 1), 3)
    branches = [
        b.layer(
            "conv", ["input"], (21, 26, 12), 4, (12, side, side, 1), activation="RELU",
            kernel=(side, side), stride=(1, 1), dilation=(1, 1), pad=(side // 2,) * 4,
        )
        for side in (3, 5)
    ]  # fmt: skip
    joined = b.layer("concat", branches, (21, 26, 24), 4, axis=3)
    graph, _, _ = compiled(b.quantized("branches", joined), "B1600")
    assert [graph.op(name).attrs["channel_augmentation"] for name in branches] == [1, 1]
    upload = next(op for op in graph.ops if op.type == "upload").tensor
    assert upload.attrs["ddr_addr"] == 64  # 5x5: two rows of 30 and two pixels
    (dpu,) = graph.subgraphs("DPU")
    assert dpu.attrs["reg_id_to_size"]["REG_2"] == -(-(64 + 21 * 26 + 2 * 26 + 2) // 16) * 16


def test_the_input_stands_where_the_vendors_stands():
    """LeNet's 5x5 on 28x28x1: REG_2 and the LOADs as in a file of compiler 3.5."""
    graph, load, _ = compiled(first_layer((28, 28, 1), (5, 5), (1, 1), (2, 2, 2, 2)), "B4096")
    upload = next(op for op in graph.ops if op.type == "upload").tensor
    assert (upload.attrs["ddr_addr"], upload.attrs["stride"]) == (80, [784, 28, 1, 1])
    (dpu,) = graph.subgraphs("DPU")
    assert dpu.attrs["reg_id_to_size"]["REG_2"] == 928
    names = ("ddr_addr", "channel", "jump_read", "length", "pad_start", "pad_end", "pad_idx")
    assert [load[name] for name in names] == [78, 5, 1, 28, 2, 12, 2]


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "pad", "address"),
    [
        ((28, 28, 1), (5, 5), (1, 1), (2, 2, 2, 2), 80),  # LeNet, compiler 3.5
        ((28, 28, 1), (3, 3), (1, 1), (1, 1, 1, 1), 32),  # 2.5
        ((28, 28, 1), (3, 3), (1, 1), (0, 0, 0, 0), 0),  # 3.5
        ((224, 224, 3), (3, 3), (2, 2), (1, 0, 1, 0), 688),  # MobileNetV2, 3.5
        ((640, 640, 3), (3, 3), (2, 2), (1, 0, 1, 0), 1936),  # YOLOv8, 3.5
        ((640, 640, 3), (6, 6), (2, 2), (2, 2, 2, 2), 3872),  # YOLOv5, 2.5
    ],
)
def test_addresses_of_the_input_in_vendor_files(shape, kernel, stride, pad, address):
    network = first_layer(shape, kernel, stride, pad, 2)
    graph = lower(network, get_target("DPUCZDX8G_ISA1_B4096"))
    compile_graph(graph)
    (program,) = read_programs(graph)
    assert program.inputs[0].address == address


@pytest.mark.parametrize(
    "name",
    ["lenet_28_tf2_b4096_3.5", "mnist_28_pt_b4096_2.5", "mnist_28_tf2_b4096_3.5"],
)
def test_vendor_graphs_compiled_again(shared, name):
    """Our code for their graph: their outputs, and the LOADs of the input the same."""
    path = shared(f"golden/wild/{name}.xmodel")
    vectors = np.load(path.with_suffix(".npz"))
    (theirs,) = read_programs(Graph.load(path))
    graph = Graph.load(path)
    compile_graph(graph)
    (ours,) = read_programs(graph)
    assert [port.op for port in ours.inputs] == json.loads(str(vectors["meta"]))["subgraphs"][0]["inputs"]
    (output,) = Simulator(ours).run([vectors["sub0_input_0"]])
    np.testing.assert_array_equal(output, vectors["sub0_output_0"])

    def rows(program):
        loads = [op for op in decode(program.code) if op.name == "LOAD" and op["reg_id"] == 2]
        return sorted({str({**op.fields, "bank_id": 0, "bank_addr": 0}) for op in loads})

    assert rows(ours) == rows(theirs)
    assert ours.inputs == theirs.inputs
    assert format_instruction(decode(ours.code)[-1]) == format_instruction(decode(theirs.code)[-1])
