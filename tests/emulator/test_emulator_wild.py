"""Files of other people's projects against vectors of the vendor's simulator and CPU runner, bit by bit.

What each file holds: ../shared/golden/wild/README.md.
"""

import json

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.emulator import Emulator, axes, operations, plan
from dpuflow.xir import Graph
from dpuflow.xir.parameters import constants

RESAMPLING = {
    "yolov5n_640_pt_b4096_2.5": {"upsample-fix": 2},
    "yolov8n_640_pt_b4096_3.5": {"upsample-fix": 2},
    "zerodce_512_pt_b4096_3.0": {"downsample-fix": 1, "upsample-fix": 1},
}
"""Stem of the file -> op types of resizing in it, and how many ops each."""

VERSAL = "lenet_32_pt_vdx8g_3.5"
SHIFTED_BIAS = ("mlp_63_pt_isa0_b4096_1.4", "mnist_28_tf_isa0_b4096_1.4")
"""Compiled with a shift_bias below -1, so their biases are stored shifted; the vendor's CPU runner, which
made their vectors, shifts them a second time (docs/reference/numerics.md, "Convolution")."""


@pytest.fixture(scope="module")
def wild(shared):
    """stem -> path of every file."""
    return {path.stem: path for path in sorted(shared("golden/wild").glob("*.xmodel"))}


def lacking(graph):
    """{op type: number of ops} that the emulator does not know."""
    types = [op.type for op in graph.ops if op.type not in plan.known_types()]
    return {type_: types.count(type_) for type_ in types}


def vectors(path):
    arrays = np.load(path.with_suffix(".npz"))
    return arrays, json.loads(str(arrays["meta"]))


def assert_equal(found, expected, what):
    """Same values: codes exactly; softmax, float arithmetic of another library, to the last bits."""
    assert found.shape == expected.shape, what
    if expected.dtype == np.float32:
        np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=what)
    else:
        np.testing.assert_array_equal(found, expected, err_msg=what)


def check_subgraph(emulator, arrays, entry):
    """One DPU subgraph: outputs and the maps that the simulator left in memory; their number."""
    number = entry["index"]
    given = {name: arrays[f"sub{number}_input_{i}"] for i, name in enumerate(entry["inputs"])}
    found = emulator.run_subgraph(entry["name"], given, dump=True)
    for i, name in enumerate(entry["outputs"]):
        assert_equal(found[name], arrays[f"sub{number}_output_{i}"], name)
    for name in entry["ddr"]:
        assert_equal(found[name], arrays[f"sub{number}_ddr_{name}"], name)
    return len(entry["outputs"]) + len(entry["ddr"])


def check_whole(emulator, arrays, meta):
    """The whole graph from its input, every map that the CPU runner left; their number."""
    given = arrays["cpu_input"] if "cpu_input" in arrays else arrays[meta["cpu_input"]]
    found = emulator.run(given, dump=True)
    for entry in meta["cpu"]:
        name = entry["op"]
        value = found[name]
        if "fix_point" in entry:  # an uncompiled graph: floats on the grid
            value = np.ldexp(value, entry["fix_point"])
        assert_equal(value, arrays[entry.get("same_as", f"cpu_output_{name}")], name)
    return len(meta["cpu"])


@pytest.fixture
def without_resampling(monkeypatch):
    """An emulator that knows neither upsample-fix nor downsample-fix."""
    for type_ in ("upsample-fix", "downsample-fix"):
        monkeypatch.delitem(operations.INTEGER_OPS, type_)


def test_no_file_has_an_operator_that_the_emulator_lacks(wild):
    found = {stem: lacking(Graph.load(path)) for stem, path in wild.items()}
    assert {stem: types for stem, types in found.items() if types} == {}


def test_every_file_is_bit_equal_to_its_vectors(wild):
    compared = {}
    for stem, path in wild.items():
        if stem in SHIFTED_BIAS or stem == VERSAL:
            continue
        arrays, meta = vectors(path)
        with Emulator(path, threads=1) as emulator:
            count = sum(check_subgraph(emulator, arrays, entry) for entry in meta["subgraphs"])
            compared[stem] = count + check_whole(emulator, arrays, meta)
    assert {stem: compared[stem] for stem in RESAMPLING} == dict(zip(RESAMPLING, (6, 2, 5), strict=True))
    assert len(compared) >= 22
    assert sum(compared.values()) >= 105, compared


def test_a_subgraph_without_missing_operators_runs_alone(wild, without_resampling):
    """The concat of unequal fix_points, 10 and 12, of Zero-DCE: 1 x 512 x 512 x 32 codes."""
    path = wild["zerodce_512_pt_b4096_3.0"]
    arrays, meta = vectors(path)
    first, second = meta["subgraphs"]
    with pytest.raises(UserError, match=r"cannot execute 1 of its ops: .*downsample-fix"):
        Emulator(path, subgraphs=[first["name"]])
    with Emulator(path, threads=2, subgraphs=[second["name"]]) as emulator:
        assert check_subgraph(emulator, arrays, second) == 1


def test_means_of_pytorch_are_over_the_axes_that_the_shapes_tell(wild):
    """aten::mean has no attribute that says so: here over the last, then the one before."""
    stem = "efficientnetv2_136x14_136_k3_hswish_se_mean_pt_b2304_3.5"
    graph, (arrays, meta) = Graph.load(wild[stem]), vectors(wild[stem])
    means = [op for op in graph.ops if op.type == "aten::mean"]
    assert [axes.mean_axes(op, graph) for op in means] == [((3,), True), ((2,), True)]
    with Emulator(graph, threads=1) as emulator:
        found = emulator.run(arrays["cpu_input"], dump=True)
    (entry,) = meta["cpu"]
    codes = arrays[f"cpu_output_{entry['op']}"].astype(np.float64)
    mean = np.ldexp(codes.mean((1, 2)), -graph.op(entry["op"]).tensor.fix_point)
    np.testing.assert_allclose(found[means[1].name].reshape(mean.shape), mean, rtol=1e-6, atol=1e-9)
    for result, choices in (([1, 544, 14], 2), ([1, 544, 7], 0), ([1, 1, 14, 14], None)):
        means[0].tensor.proto.tensor_dim[:] = result
        if choices is None:
            assert axes.mean_axes(means[0], graph) == ((1,), True)
            continue
        with pytest.raises(UserError, match=rf"aten::mean\): .* may become .* by {choices} choices of axes"):
            axes.mean_axes(means[0], graph)


def test_missing_operators_are_all_listed_when_a_file_is_opened(wild, without_resampling):
    for stem, types in RESAMPLING.items():
        assert lacking(Graph.load(wild[stem])) == types
        graph = Graph.load(wild[stem])
        with pytest.raises(UserError) as caught:
            Emulator(wild[stem])
        message = str(caught.value)
        assert f"cannot execute {sum(types.values())} of its ops" in message
        for op in graph.ops:
            assert (repr(op.name) in message) == (op.type in types)


def test_a_file_for_another_dpu_is_refused_by_fingerprint_and_by_name(wild):
    with pytest.raises(
        UserError, match=r"another DPU, DPUCVDX8G, instruction set ISA3 .*0x603000b16013831"
    ) as caught:
        Emulator(wild[VERSAL])
    assert str(wild[VERSAL]) in str(caught.value)
    for kept in ("dpu_name", "dpu_fingerprint"):
        graph = Graph.load(wild[VERSAL])
        for subgraph in graph.subgraphs("DPU"):
            del subgraph.attrs["dpu_name" if kept == "dpu_fingerprint" else "dpu_fingerprint"]
        with pytest.raises(UserError, match="another DPU, DPUCVDX8G"):
            Emulator(graph)


@pytest.mark.parametrize("stem", SHIFTED_BIAS)
def test_biases_that_the_runner_shifts_twice(wild, monkeypatch, stem):
    """Read as the runner does they equal its vectors; read as they are stored, the layers before them do."""
    arrays, meta = vectors(wild[stem])
    graph = Graph.load(wild[stem])
    with Emulator(graph, threads=1) as emulator:
        right = emulator.run(arrays["cpu_input"], dump=True)
    monkeypatch.setattr(operations, "HARDWARE_SHIFT_BIAS_MIN", -128)
    with Emulator(graph, threads=1) as emulator:
        check_whole(emulator, arrays, meta)
    different = [e["op"] for e in meta["cpu"] if (right[e["op"]] != arrays[f"cpu_output_{e['op']}"]).any()]
    assert different
    monkeypatch.undo()
    for op in graph.ops:
        if op.type == "conv2d-fix" and operations.Conv.of(op, graph, emulator._constants).shift_bias > -1:
            assert op.name not in different


def shift_fields(subgraph):
    """(shift_cut, shift_bias) of the CONVINIT before the first CONV of a superlayer's machine code.

    ISA0 is another instruction set, but opcodes (first four bits, 9 and 8) and these two fields lie where
    they do in ISA1.
    """
    words = [int(word) for word in np.frombuffer(subgraph.attrs["mc_code"], "<u4")]
    first = next(i for i, word in enumerate(words) if word >> 28 == 8)
    start = max(i for i in range(first) if words[i] >> 28 == 9)
    return words[start] >> 10 & 0x3F, (words[start + 1] >> 10 & 0x3F) - 1


@pytest.mark.parametrize("stem", [*SHIFTED_BIAS, "signmnist_28_tf2_isa0_b4096_1.4"])
def test_the_instructions_shift_biases_as_they_are_read(wild, stem):
    """-1 where the fix_points ask for -2 to -7: the machine code tells who is right, runner or emulator."""
    graph = Graph.load(wild[stem])
    known, shifts = constants(graph), []
    (dpu,) = graph.subgraphs("DPU")
    for child in dpu.children:
        for op in map(graph.op, child.op_names):
            if op.type == "conv2d-fix":
                described = operations.Conv.of(op, graph, known)
                assert shift_fields(child) == (described.shift_cut, described.shift_bias), op.name
                shifts.append(described.shift_bias)
    assert len(shifts) == 4
    assert shifts.count(-1) == {"mlp": 2, "mnist": 4, "signmnist": 0}[stem.split("_")[0]]
