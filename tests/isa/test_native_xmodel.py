"""QuantizedNetwork -> xmodel with machine code -> simulator, against the emulator."""

import json

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.compiler.reference import lower
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.isa import shell as cli
from dpuflow.dpuczdx8g.isa.cycles import estimate_cycles
from dpuflow.dpuczdx8g.isa.program import read_programs
from dpuflow.dpuczdx8g.isa.runner import IsaRunner, run_xmodel
from dpuflow.dpuczdx8g.isa.simulator import Simulator
from dpuflow.dpuczdx8g.native.compile import STATUS, compile_graph
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.dpuczdx8g.timing import TIMING
from dpuflow.emulator import Emulator
from dpuflow.xir import Graph

from quantized_builder import Builder  # isort: skip

SIZES = ("B512", "B800", "B1024", "B1152", "B1600", "B2304", "B3136", "B4096")


def signs(blocks=(16, 32), dense=(64, 25), depthwise=False):
    """Blocks of conv, ReLU, (batch norm as 1x1 depthwise), pool; dense layers; 28x28x1."""
    b = Builder((28, 28, 1), 3)
    x = "input"
    for channels in blocks:
        x = b.conv(x, channels)
        if depthwise:
            x = b.depthwise(x)
        x = b.pool(x)
    x = b.flatten(x)
    for units in dense[:-1]:
        x = b.dense(x, units, "RELU")
    return b.quantized("signs", b.dense(x, dense[-1]))


def residual(difference=1):
    """A shortcut, a concat and a global average pool; the add's inputs differ by `difference`."""
    b = Builder((12, 12, 3), 4)
    stem = b.conv("input", 20, fix_point=4)
    branch = b.conv(stem, 20, fix_point=4 + difference, activation="NONE")
    added = b.layer("add", [stem, branch], (12, 12, 20), 4, activation="RELU")
    other = b.conv(added, 9, fix_point=4)
    joined = b.layer("concat", [added, other], (12, 12, 29), 4, axis=3)
    pooled = b.pool(joined, "avg_pool", (12, 12))
    return b.quantized("residual", b.dense(b.flatten(pooled), 10))


def images(graph, count=3):
    shape = Emulator(graph).input.tensor.shape[1:]
    return np.random.default_rng(1).integers(-128, 128, (count, *shape), np.int8)


@pytest.mark.parametrize("size", SIZES)
def test_machine_code_equals_the_emulator_on_every_size(size, tmp_path):
    target = get_target(f"DPUCZDX8G_ISA1_{size}")
    quantized = signs()
    reference = lower(quantized, target)
    batch = images(reference)
    expected = Emulator(reference).run(batch, dump=True)
    graph = compile_native(quantized, target).graph
    path = tmp_path / "signs.xmodel"
    graph.save(path)
    loaded = Graph.load(path)
    logits = run_xmodel(loaded, batch)
    assert logits.dtype == np.int8 and len(np.unique(logits)) > 10
    np.testing.assert_array_equal(logits, expected[loaded.subgraphs("DPU")[-1].op_names[-1]])
    np.testing.assert_array_equal(IsaRunner(path).run(batch), expected["softmax"])
    # the emulator reads the weights back from REG_0
    np.testing.assert_array_equal(Emulator(path).run(batch), expected["softmax"])
    assert cli.main(["check", str(path)]) == 0


@pytest.mark.parametrize("network", [signs((28, 64), (128, 25), depthwise=True), residual(2), residual(6)])
def test_other_networks(network):
    graph = compile_native(network, get_target("DPUCZDX8G_ISA1_B4096")).graph
    batch = images(graph, 5)
    np.testing.assert_array_equal(IsaRunner(graph).run(batch), Emulator(graph).run(batch))


def test_a_layer_on_the_cpu_between_two_dpu_subgraphs():
    b = Builder((59, 73, 1), 6)
    # two primes: no kernel of the DPU covers the map, and no other shape has as many values
    x = b.dense(b.flatten(b.conv("input", 1)), 30, "RELU")
    network = b.quantized("split", b.dense(x, 7))
    target = get_target("DPUCZDX8G_ISA1_B4096")
    with pytest.raises(UserError, match="kernel width is 73"):
        compile_native(network, target)
    compiled = compile_native(network, target, on_cpu="allow")
    assert [program["name"] for program in compiled.report["programs"]] == [
        "subgraph_conv1",
        "subgraph_dense4",
    ]
    batch = images(compiled.graph, 5)
    expected = Emulator(lower(network, target)).run(batch)
    np.testing.assert_array_equal(IsaRunner(compiled.graph).run(batch), expected)


def test_an_add_that_rounds_coarser_than_the_reference_is_refused():
    network = residual(6)
    for name in ("add3", "conv4", "concat5", "avg_pool6", "flatten7"):
        network.fix_points[name] = 6
    with pytest.raises(UserError, match="'add3' adds maps of fix_points 4, 10 to one of 6"):
        compile_native(network, get_target("DPUCZDX8G_ISA1_B4096"))


def test_attributes_of_the_file():
    target = get_target("DPUCZDX8G_ISA1_B2304")
    graph = compile_native(signs(), target).graph
    (dpu,) = graph.subgraphs("DPU")
    assert dpu.attrs["dpu_fingerprint"] == 0x101000056010405 and dpu.attrs["mc_code_preload"] == b""
    assert dpu.attrs["reg_id_to_context_type_v2"] == {
        "REG_0": "CONST", "REG_1": "WORKSPACE", "REG_2": "INTERFACE", "REG_3": "INTERFACE",
    }  # fmt: skip
    assert dpu.attrs["reg_id_to_hw_segment"] == {"REG_0": "W0", "REG_1": "D0", "REG_2": "D0", "REG_3": "D0"}
    assert dpu.attrs.kind("reg_id_to_size") == "map_string_2_int32"
    sizes = dpu.attrs["reg_id_to_size"]
    # behind a margin: the padding above and on the left, and below and on the right behind it
    assert sizes["REG_2"] == 32 + 784 + 32 and sizes["REG_3"] == 32
    assert sizes["REG_0"] == len(dpu.attrs["reg_id_to_parameter_value"]["REG_0"])
    assert dpu.attrs["children_topological_sort"] == [
        "subgraph_conv1", "subgraph_conv3", "subgraph_dense6", "subgraph_dense7", "subgraph_dense7_reshaped",
    ]  # fmt: skip
    upload = next(op for op in graph.ops if op.type == "upload").tensor
    assert (upload.attrs["reg_id"], upload.attrs["ddr_addr"], upload.attrs["location"]) == (2, 32, 1)
    assert upload.attrs["stride"] == [784, 28, 1, 1]
    saved = graph.op("dense7").tensor
    assert (saved.attrs["reg_id"], saved.attrs["location"], saved.attrs["stride"]) == (3, 1, [25, 25, 25, 1])
    assert graph.op("conv1").tensor.attrs["location"] == 0
    weights = graph.op("conv1_weights")
    assert weights.attrs["data"] == b"" and weights.tensor.attrs["ddr_addr"] % 4096 == 0
    assert graph.op("conv1").attrs["channel_augmentation"] == 1
    assert graph.op("conv1").attrs["workload_on_arch"] == 32 * 28 * 24 * (2 * 3 * 12 + 1)
    total = sum(op.attrs.get("workload_on_arch", 0) for op in graph.ops)
    assert dpu.attrs["workload_on_arch"] == graph.root.attrs["workload_on_arch"] == total
    assert graph.attrs["dpuflow_note"] == STATUS


def test_report_and_determinism():
    target = get_target("DPUCZDX8G_ISA1_B4096")
    first, again = compile_native(signs(), target), compile_native(signs(), target)
    assert first.graph.to_bytes() == again.graph.to_bytes()
    assert json.dumps(first.report) == json.dumps(again.report)
    assert first.report["machine_code"] is True and first.report["compiler"] == "native"
    assert "not yet on hardware" in first.report["note"]
    (program,) = first.report["programs"]
    estimate = program["estimate"]
    assert estimate["kind"] == "estimate"
    # bands x groups x columns x taps: two convolutions (the first one with its kernel's columns as
    # channels), a 7x7x32 and a 1x1x64 dense layer
    steps = 4 * 28 * 3 + 4 * 14 * 9 + 4 * 49 * 2 + 2 * 4
    assert program["instructions"]["CONV"] == 14
    assert estimate["busy"]["CONV"] == steps + 14 * TIMING.issue_cycles
    assert max(estimate["busy"].values()) <= estimate["cycles"] <= estimate["sequential"]
    total = first.report["estimate"]["machine_code"]
    assert total["cycles"] == estimate["cycles"]
    assert total["dpu_us"] == pytest.approx(estimate["cycles"] / 300, rel=1e-3)
    assert total["latency_us"] == pytest.approx(total["overhead_us"] + total["dpu_us"], rel=1e-3)
    assert program["spilled"] == [] and "conv1" in program["on_chip"]


def test_vendor_graph_compiled_again_gives_the_vendors_outputs(shared):
    """The vendor's network with our code in place of theirs, on another size too."""
    vectors = np.load(shared("golden/vendor/zcu102_mnist_vectors.npz"))
    path = shared("golden/vendor/zcu102_mnist_3.0.xmodel")
    for fingerprint in (0x101000056010407, 0x101000056010201):
        graph = Graph.load(path)
        for subgraph in graph.subgraphs("DPU"):
            subgraph.attrs["dpu_fingerprint"] = fingerprint
        theirs = [Simulator(program) for program in read_programs(Graph.load(path))]
        compile_graph(graph)
        for number, program in enumerate(read_programs(graph)):
            ours = Simulator(program)
            (output,) = ours.run([vectors[f"dpu{number}_input"][:6]])
            np.testing.assert_array_equal(output, vectors[f"dpu{number}_output"][:6])
            if ours.machine == theirs[number].machine:
                assert len(program.code) <= len(theirs[number].program.code)
                estimates = [
                    estimate_cycles([step.instruction for step in simulator.steps])
                    for simulator in (ours, theirs[number])
                ]
                assert estimates[0]["cycles"] <= estimates[1]["cycles"]
                assert all(estimates[0]["busy"][n] == estimates[1]["busy"][n] for n in ("CONV", "MISC"))


def test_channel_augmentation():
    """Few input channels, no padding at the sides: kernel columns become channels."""
    b = Builder((20, 21, 3))
    x = b.layer("conv", ["input"], (9, 9, 12), 4, (12, 3, 5, 3), activation="RELU",
                kernel=(5, 3), stride=(2, 2), dilation=(1, 1), pad=(0, 0, 0, 0))  # fmt: skip
    network = b.quantized("augmented", b.dense(x, 10))
    for size, entries in (("B4096", 1), ("B1600", 2), ("B512", 2)):
        compiled = compile_native(network, get_target(f"DPUCZDX8G_ISA1_{size}"))
        (simulator,) = IsaRunner(compiled.graph).simulators.values()
        init = next(step.instruction for step in simulator.steps if step.instruction.name == "CONVINIT")
        load = next(step.instruction for step in simulator.steps if step.instruction["reg_id"] == 2)
        assert (init["kernel_w"], init["kernel_h"], init["stride_w"], init["stride_h"]) == (1, 3, 1, 2)
        assert (load["channel"], load["jump_read"], load["jump_write"], load["length"]) == (15, 6, entries, 9)
        assert compiled.graph.op("conv1").attrs["channel_augmentation"] == 1
        batch = images(compiled.graph, 4)
        np.testing.assert_array_equal(
            IsaRunner(compiled.graph).run(batch), Emulator(compiled.graph).run(batch)
        )


def test_files_without_usable_code_are_user_errors(tmp_path):
    target = get_target("DPUCZDX8G_ISA1_B4096")
    with pytest.raises(UserError, match=r"has no machine code.*native"):
        read_programs(lower(signs(), target), "f.xmodel")
    graph = compile_native(signs(), target).graph
    (dpu,) = graph.subgraphs("DPU")
    code = dpu.attrs["mc_code"]
    dpu.attrs["mc_code"] = code[:-2]
    with pytest.raises(UserError, match="2 stray bytes at offset"):
        IsaRunner(graph)
    dpu.attrs["mc_code"], dpu.attrs["dpu_fingerprint"] = code, 0x603000B56011861
    with pytest.raises(UserError, match="is compiled for another DPU, DPUCVDX8G"):
        IsaRunner(graph)
    with pytest.raises(UserError, match="int8 with at least one image"):
        IsaRunner(compile_native(signs(), target).graph).run(np.zeros((1, 28, 28, 1), np.float32))


@pytest.mark.parametrize(
    ("stride", "kernel", "dilation"),
    [((1, 1), [3, 3], [2, 3]), ((2, 1), [5, 7], [1, 1])],
    ids=["in phases", "with a stride, written out"],
)
def test_dilated_kernels(stride, kernel, dilation):
    b = Builder((20, 20, 3))
    attrs = {"kernel": (3, 3), "stride": stride, "dilation": (2, 3), "pad": (2, 2, 3, 3)}
    shape = (20, 20 // stride[0], 8)
    wide = b.layer("conv", ["input"], shape, 4, (8, 3, 3, 3), activation="RELU", **attrs)
    network = b.quantized("wide", b.dense(b.flatten(b.pool(b.pool(wide))), 5))
    target = get_target("DPUCZDX8G_ISA1_B4096")
    native, reference = compile_native(network, target).graph, lower(network, target)
    spread = native.op("conv1")
    assert (list(spread.attr("kernel")), list(spread.attr("dilation"))) == (kernel, dilation)
    assert list(reference.op("conv1").attr("dilation")) == [2, 3]
    images = np.random.default_rng(3).integers(-128, 128, (3, 20, 20, 3), np.int8)
    np.testing.assert_array_equal(IsaRunner(native).run(images), Emulator(reference).run(images))
