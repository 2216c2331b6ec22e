"""Gates in machine code: multiply, hard sigmoid, factors per channel, on all sizes of the DPU."""

import json

import numpy as np
import pytest
from integer_reference import JobBuilder, run_job
from random_jobs import FINGERPRINTS, assert_equal, program

from dpuflow.base.errors import UserError
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.isa.runner import IsaRunner
from dpuflow.dpuczdx8g.isa.simulator import Simulator
from dpuflow.dpuczdx8g.native.lowering import lower_subgraph
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.emulator import Emulator
from dpuflow.quantize.reference import quantize
from dpuflow.tfgraph.graph_reader import read_network
from dpuflow.xir import Graph
from tests.quantize.frozen_networks import gated_network


@pytest.fixture(scope="module")
def gated(tmp_path_factory):
    """(QuantizedNetwork, images)."""
    images = np.random.default_rng(5).integers(0, 256, (16, 12, 12, 3), np.uint8)
    path = gated_network(tmp_path_factory.mktemp("gated") / "gated.pb")
    settings = {"diagnosis": False, "position_search": {"criterion": None}, "fast_finetune": False}
    return quantize(read_network(path), images, settings)[0], images


@pytest.mark.parametrize("size", FINGERPRINTS)
def test_a_network_of_gates_is_verified_on_every_size(gated, size):
    quantized, images = gated
    compiled = compile_native(quantized, get_target(f"DPUCZDX8G_ISA1_{size}"), calibration=images)
    verified = compiled.report["verification"]
    assert {"hard_sigmoid", "multiply"} <= {layer["op"] for layer in verified["layers"]}
    types = [op.type for op in compiled.graph.ops]
    assert (types.count("hard-sigmoid-fix"), types.count("depthwise-fix")) == (6, 2)
    assert {op.attr("type") for op in compiled.graph.ops if op.type == "eltwise-fix"} == {"MUL"}
    runner = IsaRunner(compiled.graph)
    batch = runner.quantize_input(images[:3])
    np.testing.assert_array_equal(Emulator(compiled.graph).run(batch), runner.run(batch))
    np.testing.assert_array_equal(Emulator(compiled.quantized_graph).run(batch), runner.run(batch))
    modes = {s.instruction["exec_mode"] for s in steps(runner) if s.instruction.name == "ALUINIT"}
    assert {6, 7} <= modes
    assert {s.instruction["elew_type"] for s in steps(runner) if s.instruction.name == "ELEW"} == {1}


def steps(runner):
    return next(iter(runner.simulators.values())).steps


@pytest.mark.parametrize("size", ["B512", "B1152", "B4096"])
def test_factors_of_maps_that_need_tiles_and_slices(size):
    """Factors are loaded anew for every slice of channels, and serve all its tiles."""
    builder = JobBuilder((20, 37, 5), 3)
    x = builder.conv(builder.input, 300, (1, 1), pad=(0, 0, 0, 0))
    x = builder.squeeze_and_excitation(builder.multiply([x, builder.hard_sigmoid(x)]), 9)
    assert_equal(builder, builder.job(builder.conv(x, 7, stride=(2, 2))), FINGERPRINTS[size], images=1)


def test_factors_of_more_channel_groups_than_one_instruction_has():
    builder = JobBuilder((2, 3, 4), 1)
    x = builder.conv(builder.input, 2085, (1, 1), pad=(0, 0, 0, 0))
    job = builder.job(builder.scale(x, builder.pool(x, "avg_pool", (2, 3), (1, 1))))
    images = builder.images(2)
    (found,) = Simulator(program(job, FINGERPRINTS["B512"])[0]).run([images])
    np.testing.assert_array_equal(found, run_job(job, images)[0])


def test_factors_that_are_an_input():
    """Whoever makes them: an input of the subgraph, or an output as well."""
    builder = JobBuilder((1, 1, 33), 2)
    x = builder.hard_sigmoid(builder.conv(builder.input, 33, (1, 1), pad=(0, 0, 0, 0)))
    y = builder.scale(x, builder.input)
    assert_equal(builder, builder.job(builder.scale(y, x), x), FINGERPRINTS["B2304"])


@pytest.mark.parametrize(
    "stem", ["136x14_136_k3_hswish_se", "48x28_48_k5_relu_se", "136x14_136_k3_hswish_se_mean"]
)
def test_what_the_vendor_compiled_is_compiled_again(shared, stem):
    """The vendor's graph through our code generator: equal to its vectors, factors in either order."""
    path = shared(f"golden/wild/efficientnetv2_{stem}_pt_b2304_3.5.xmodel")
    graph, vectors = Graph.load(path), np.load(path.with_suffix(".npz"))
    for number, subgraph in enumerate(graph.subgraphs("DPU")):
        lowered = lower_subgraph(graph, subgraph)
        compiled, _ = program(lowered.job, subgraph.attrs["dpu_fingerprint"])
        names = [port.name for port in compiled.inputs]
        meta = json.loads(str(vectors["meta"]))["subgraphs"][number]
        given = [
            vectors[f"sub{number}_input_{meta['inputs'].index(graph.op(name).input_names[0])}"]
            for name in names
        ]
        given = [x.reshape(len(x), *p.shape) for x, p in zip(given, compiled.inputs, strict=True)]
        (found,) = Simulator(compiled).run(given)
        np.testing.assert_array_equal(found.reshape(-1), vectors[f"sub{number}_output_0"].reshape(-1))


def test_shifts_beyond_the_instructions_are_refused(gated):
    quantized, _ = gated
    graph = compile_native(quantized, get_target("DPUCZDX8G_ISA1_B4096")).graph
    for type_ in ("depthwise-fix", "eltwise-fix"):
        changed = Graph.from_bytes(graph.to_bytes())
        op = next(op for op in changed.ops if op.type == type_)
        op.tensor.attrs["fix_point"] = 40
        with pytest.raises(UserError, match=f"'{op.name}': shift of the product is -.*takes 0 to 15"):
            lower_subgraph(changed, changed.subgraphs("DPU")[0])
