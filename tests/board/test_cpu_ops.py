"""The application's CPU operators against the emulator: every type, golden vectors, random layers."""

import json
import sys

import numpy as np
import pytest
from application_modules import module

from dpuflow.base.errors import UserError
from dpuflow.board.integer_parts import describe_operation
from dpuflow.board.parts import DESCRIPTIONS, describe_parts
from dpuflow.emulator import Emulator, oracle, plan, random_cases
from dpuflow.emulator.operations import (
    CONV_KINDS,
    Concat,
    Conv,
    Eltwise,
    HardSigmoid,
    InsideAverage,
    PixelShuffle,
    Pool,
    Resample,
    Slice,
)
from dpuflow.xir import Graph

TYPES = {Pool: "pool-fix", Eltwise: "eltwise-fix", Concat: "concat-fix", HardSigmoid: "hard-sigmoid-fix"}
TYPES |= {InsideAverage: "pool-fix", Resample: "upsample-fix", PixelShuffle: "pixel-shuffle-fix"}
TYPES |= {Slice: "strided_slice-fix"}


@pytest.fixture(scope="module")
def cpu_ops():
    return module("cpu_ops")


def run(cpu_ops, operation, inputs):
    """What the application computes, from the description as it goes through meta.json."""
    described = describe_operation(operation, inputs[0].shape)
    arrays = described.pop("arrays", {})
    type_ = TYPES.get(type(operation))
    if isinstance(operation, Conv):
        type_ = {kind: type_ for type_, kind in CONV_KINDS.items()}[operation.kind]
    entry = {"name": "op", "type": type_, "inputs": ["x"] * len(inputs), **described}
    entry = json.loads(json.dumps({**entry, "arrays": {name: name for name in arrays}}))
    return cpu_ops.prepare(entry, arrays)(inputs)


def test_the_application_knows_what_the_emulator_knows(cpu_ops):
    """An operator that one of the tables lacks is named here. `stack` takes constants only."""
    emulated = plan.known_types() - {"data", "data-fix", "const", "const-fix", "stack"}
    assert set(cpu_ops.OPERATORS) == emulated == set(DESCRIPTIONS)


def test_golden_vectors_of_the_vendors_runtime(cpu_ops, shared, repo, monkeypatch):
    monkeypatch.syspath_prepend(str(repo / "tests" / "emulator"))
    from golden_cases import operation

    cases = json.loads(shared("golden/ops.json").read_text())
    with np.load(shared("golden/ops.npz")) as stored:
        arrays = {name: stored[name] for name in stored.files}
    counted = 0
    for case in cases:
        op, inputs, expected = operation(case, arrays)
        found = run(cpu_ops, op, inputs)
        assert found.dtype == np.int8 and np.array_equal(found, expected), case["id"]
        counted += 1
    assert counted == 600


@pytest.mark.parametrize("kind", random_cases.KINDS)
def test_random_layers_equal_the_emulators(cpu_ops, kind):
    rng = np.random.default_rng([15, len(kind), ord(kind[0])])
    for number in range(60):
        _, op, inputs = random_cases.operation(rng, kind)
        found, expected = run(cpu_ops, op, inputs), oracle.apply(op, *inputs)
        assert found.dtype == np.int8
        np.testing.assert_array_equal(found, expected, err_msg=f"{number}: {op}")


def test_a_large_convolution_is_unfolded_in_bands(cpu_ops, monkeypatch):
    rng = np.random.default_rng(3)
    _, op, inputs = random_cases.operation(rng, "conv2d")
    whole = run(cpu_ops, op, inputs)
    monkeypatch.setattr(sys.modules["cpu_windows"], "LARGEST_WINDOWS", 1)
    assert np.array_equal(run(cpu_ops, op, inputs), whole)


@pytest.mark.fault("board", "CPU op that the application does not know", "refused")
def test_an_unknown_op_is_refused_by_name(cpu_ops):
    error = module("board_info").AppError
    with pytest.raises(error, match="'custom_layer' is of type 'Mylayer', which this application cannot run"):
        cpu_ops.prepare({"name": "custom_layer", "type": "Mylayer"}, {})


@pytest.mark.fault("board", "CPU op whose windows reach beyond its input", "refused")
def test_windows_beyond_the_input_are_refused(cpu_ops):
    window = {"kernel": [3, 3], "stride": [1, 1], "pad": [0, 0, 0, 0], "out": [9, 9]}
    op = {"name": "conv", "type": "conv2d", "group": 1, "arrays": {"weights": "w"}, **window}
    function = cpu_ops.prepare(op, {"w": np.ones((1, 3, 3, 1), np.float32)})
    error = module("board_info").AppError
    with pytest.raises(error, match="'conv': its windows reach beyond"):
        function([np.zeros((1, 8, 8, 1), np.float32)])


ARGUMENTS = {
    "prelu": ["weight"],
    "scale": ["scale", "bias"],
    "batchnorm": ["gamma", "beta", "moving_mean", "moving_var"],
}
"""Arguments behind the input of ops whose parameters are constants."""


class FloatGraph:
    """A CPU subgraph of float ops between a data-fix input and its end."""

    def __init__(self):
        self.graph, self.last = Graph("floats"), "x"
        attrs = {"shape": [1, 6, 5, 4], "data_type": "XINT8"}
        self.graph.add_op("x", "data-fix", {}, attrs).tensor.attrs.update({"fix_point": 4, "bit_width": 8})
        self.names = []
        self.add("fix2float", fix_point=4, bit_width=8, round_mode="DPU_ROUND", if_signed=True)

    def const(self, array):
        array = np.asarray(array, np.float32)
        name = f"const{len(self.names)}"
        attrs = {"shape": list(array.shape), "data_type": "FLOAT32", "data": array.tobytes()}
        self.graph.add_op(name, "const", {}, attrs)
        self.names.append(name)
        return name

    def add(self, type_, *more, source=None, **attrs):
        name, source = f"{type_}{len(self.names)}", source or self.last
        inputs = {"input": [source, *more]}
        if type_.endswith("conv2d"):
            inputs = {"input": [source], "weights": [more[0]], "bias": [more[1]]}
        if type_ in ARGUMENTS:
            inputs = {"input": [source], **{k: [v] for k, v in zip(ARGUMENTS[type_], more, strict=False)}}
        self.graph.add_op(name, type_, inputs, attrs)
        self.names.append(name)
        self.last = name
        return name

    def foreign(self, name, type_, shape):
        """An op that XIR does not define, as vai_q_pytorch writes it."""
        node = self.graph.proto.op_node.add(op_name=name, op_type=type_)
        node.args.add(arg_name="input", arg_ops=[self.last])
        node.output_tensor.tensor_name = self.last = name
        self.graph = Graph(proto=self.graph.proto)
        op = self.graph.op(name)
        op.tensor.shape, op.tensor.data_type, op.tensor.bit_width = shape, "FLOAT", 32
        op.attrs["shape"], op.attrs["data_type"] = list(shape), "FLOAT32"
        self.names.append(name)
        return name

    def split(self):
        self.graph.root.proto.subgraph_name = "root"
        for name, device, ops in (("user", "USER", ["x"]), ("cpu", "CPU", self.names)):
            child = self.graph.root.add_child(name, ops)
            child.attrs["device"] = device
        return self.graph


def rare_ops(f, rng):
    """Scales, reductions and paddings of a 1x6x5x6 map, which comes out in its shape."""
    six = [f.const(rng.integers(1, 9, 6) / 7) for _ in range(7)]
    f.add("scale", *six[:2])
    f.add("scale", six[2])
    f.add("prelu", f.const(rng.integers(-3, 4, 6) / 8), source=f.add("neg"))
    start = f.add("batchnorm", *six[3:], axis=3, epsilon=1e-3)
    for mode in ("REFLECT", "SYMMETRIC"):
        f.add("pad", paddings=[0, 0, 1, 1, 1, 1, 0, 0], mode=mode)
        f.add("maxpool2d", kernel=[3, 3], pad=[0, 0, 0, 0], stride=[1, 1], pad_mode="FLOOR")
    largest = f.add("max", start, f.add("reduction_max", axis=[1], keep_dims=True))
    f.add("min", largest, source=f.add("reduction_sum", source=start, axis=[3, 2], keep_dims=True))
    seen = f.add("avgpool2d", kernel=[1, 1], pad=[0] * 4, stride=[1, 1], pad_mode="FLOOR")
    mean = f.add("reduction_mean", source=start, axis=[1, 2], keep_dims=True)
    f.add("add", seen, source=f.add("mul", f.const([30 * 17 / 2**9]), source=mean))


def float_graph():
    rng, f = np.random.default_rng(4), FloatGraph()
    window = {"stride": [1, 1], "pad_mode": "FLOOR"}
    grid = {"bit_width": 8, "if_signed": True}
    weights = f.const(rng.integers(-8, 9, (6, 3, 3, 2)) / 8)
    bias = f.const(rng.integers(-8, 9, 6) / 8)
    f.add("conv2d", weights, bias, kernel=[3, 3], dilation=[1, 1], pad=[1, 1, 1, 1], group=2, **window)
    f.add("fix", fix_point=3, round_mode="STD_ROUND", **grid)
    f.add("leaky-relu", alpha=0.1015625)
    depth, bias = f.const(rng.integers(-8, 9, (1, 3, 3, 6)) / 8), f.const(rng.integers(-8, 9, 6))
    f.add("depthwise-conv2d", depth, bias, kernel=[3, 3], dilation=[1, 1], pad=[1, 1, 1, 1], **window)
    before = f.add("fix", fix_point=2, round_mode="PY3_ROUND", **grid)
    pooled = f.add("avgpool2d", kernel=[3, 3], pad=[1, 1, 1, 1], count_include_pad=True, **window)
    f.add("mul", f.const([63 / 64]), source=pooled)
    mean = f.add("fix", fix_point=3, round_mode="DPU_ROUND", **grid)
    taps, depth = f.const(rng.integers(-8, 9, (6, 3, 2, 6)) / 8), f.const(rng.integers(-8, 9, (1, 2, 3, 6)))
    cut = {"dilation": [1, 1], "pad": [0, 1, 1, 0], "stride": [2, 1], "pad_mode": "FLOOR"}
    f.add("transposed-conv2d", taps, bias, kernel=[2, 3], source=before, **cut)
    f.add("transposed-depthwise-conv2d", depth, bias, kernel=[3, 2], **cut)
    f.add("avgpool2d", kernel=[2, 2], pad=[0, 1, 0, 1], count_include_pad=False, source=before, **window)
    f.add("hard-sigmoid")
    gate = f.add("mul", f.const([6 * 2731 / 2**14]))
    f.add("mul", mean, source=gate)
    total = f.add("add", before)
    rest = f.add("sub", mean, source=total)
    f.add("pad", paddings=[0, 0, 0, 0, 0, 1, 0, 0], mode="CONSTANT", constant_values=[0.5])
    f.add("pixel-shuffle", scale=2, upscale=False)
    f.add("pixel-shuffle", scale=2, upscale=True)
    f.add("maxpool2d", kernel=[2, 1], pad=[0, 0, 0, 0], **window)
    rest = f.add("sub", rest)
    f.add("reduction_mean", axis=[-1], keep_dims=True)
    f.add("sub", f.foreign("mean", "aten::mean", (1, 6, 1, 1)), source=rest)
    f.add("maxpool2d", kernel=[2, 2], pad=[0, 1, 0, 1], stride=[2, 2], pad_mode="CEIL")
    f.add("relu6")
    grid2 = {"align_corners": True, "half_pixel_centers": False}
    f.add("resize", mode="BILINEAR", scale=[2.0, 1.0], **grid2)
    f.add("resize", mode="NEAREST", scale=[0.5, 1.0], **grid2)
    f.add("pad", paddings=[0, 0, 1, 0, 0, 1, 0, 0], mode="CONSTANT", constant_values=[1.5])
    rare_ops(f, rng)
    f.add("transpose", order=[0, 3, 1, 2])
    length = f.foreign("norm", "nndct_normalize", (1, 6, 5))
    f.add("flatten", start_axis=1, end_axis=2)
    f.add("matmul", f.const(rng.integers(-8, 9, (5, 30)) / 16), transpose_a=False, transpose_b=True)
    f.add("concat", f.add("flatten", source=length, start_axis=1, end_axis=2), axis=1)
    f.add("relu")
    f.add("hard-sigmoid")
    f.add("float2fix", fix_point=2, round_mode="DPU_ROUND", **grid)
    f.add("identity")
    f.add("fix2float", fix_point=2, round_mode="DPU_ROUND", **grid)
    f.add("softmax", axis=-1)
    f.add("sigmoid", source=f.add("strided_slice", begin=[0, 1], end=[1, 30], strides=[1, 2]))
    f.add("tanh", source=f.add("exp"))
    f.add("div", f.const(rng.integers(1, 9, (1, 15)) / 7))
    f.add("argmax", axis=1)
    return f.split()


def test_float_ops_equal_the_emulators(cpu_ops):
    emulator = Emulator(float_graph())
    parts, arrays = describe_parts(emulator)
    ops = json.loads(json.dumps(parts[1]["ops"]))
    floats = {type_ for type_ in cpu_ops.OPERATORS if not type_.endswith("-fix")}
    assert floats - {op["type"] for op in ops} == {"upload", "download", "reshape", "squeeze"}
    x = np.random.default_rng(1).integers(-128, 128, (7, 6, 5, 4)).astype(np.int8)
    expected = emulator.run(x, dump=True)
    values = {"x": x, **{name: arrays[key] for name, key in parts[1]["constants"].items()}}
    for op in ops:
        values[op["name"]] = cpu_ops.prepare(op, arrays)([values[name] for name in op["inputs"]])
        found = values[op["name"]]
        assert found.shape == expected[op["name"]].shape
        np.testing.assert_array_equal(found, expected[op["name"]], err_msg=op["name"])
    assert len(np.unique(values["norm"])) > 20


def integer_graph(type_, shape, fix_out, attrs, name="op"):
    """One op without weights of a 6x5x4 map of fix_point 4, on the CPU; its shape as a file has it."""
    f = FloatGraph()
    node = f.graph.proto.op_node.add(op_name=name, op_type=type_)
    node.args.add(arg_name="input", arg_ops=["x"])
    node.output_tensor.tensor_name = name
    f.graph = Graph(proto=f.graph.proto)
    f.names.append(name)
    op = f.graph.op(name)
    op.attrs.update(attrs)
    op.tensor.shape, op.tensor.data_type, op.tensor.bit_width = (1, *shape), "XINT", 8
    grid = {"fix_point": fix_out, "bit_width": 8, "if_signed": True, "round_mode": "DPU_ROUND"}
    op.tensor.attrs.update(grid)
    return f.split()


INTEGERS = {
    "maximum": ("reduction_max-fix", (1, 1, 4), 4, {"axis": [1, 2], "keep_dims": True}),
    "maximum, rounded": ("reduction_max-fix", (6, 4), 2, {"axis": [2], "keep_dims": False}),
    "place": ("argmax-fix", (6, 5), 0, {"axis": -1}),
    "place, kept": ("argmax-fix", (6, 5, 1), 0, {"axis": 3}),
    "edge repeated": ("pad-fix", (8, 7, 4), 4, {"paddings": [0, 0, 1, 1, 2, 0, 0, 0], "mode": "SYMMETRIC"}),
    "edge left out": ("pad-fix", (8, 7, 4), 4, {"paddings": [0, 0, 1, 1, 2, 0, 0, 0], "mode": "REFLECT"}),
    "constant": (
        "pad-fix",
        (8, 5, 5),
        4,
        {"paddings": [0, 0, 1, 1, 0, 0, 0, 1], "mode": "CONSTANT", "constant_values": b"\xf0"},
    ),
}


def expected_integers(case, x):
    """The same in plain NumPy."""
    return {
        "maximum": lambda: x.max(axis=(1, 2), keepdims=True),
        "maximum, rounded": lambda: np.clip(np.floor(x.max(axis=2) / 4 + 0.5), -128, 127),
        "place": lambda: x.argmax(axis=-1),
        "place, kept": lambda: x.argmax(axis=-1)[..., None],
        "edge repeated": lambda: x[:, [0, 0, 1, 2, 3, 4, 5, 5]][:, :, [1, 0, 0, 1, 2, 3, 4]],
        "edge left out": lambda: x[:, [1, 0, 1, 2, 3, 4, 5, 4]][:, :, [2, 1, 0, 1, 2, 3, 4]],
        "constant": lambda: np.pad(x, [(0, 0), (1, 1), (0, 0), (0, 1)], constant_values=-16),
    }[case]()


@pytest.mark.parametrize("case", INTEGERS)
def test_integer_ops_without_weights(cpu_ops, case):
    graph = integer_graph(*INTEGERS[case])
    emulator = Emulator(graph)
    x = np.random.default_rng(2).integers(-128, 128, (5, 6, 5, 4)).astype(np.int8)
    found = emulator.run(x)["op"]
    np.testing.assert_array_equal(found, expected_integers(case, x))
    assert found.dtype == np.int8
    parts, _ = describe_parts(emulator)
    (op,) = (op for op in json.loads(json.dumps(parts[1]["ops"])) if op["name"] == "op")
    on_the_board = cpu_ops.prepare(op, {})([x])
    assert on_the_board.dtype == np.int8
    np.testing.assert_array_equal(on_the_board, found)


WRONG = {
    "another grid": ("pad-fix", (8, 5, 4), 3, {"paddings": [0, 0, 1, 1, 0, 0, 0, 0], "mode": "CONSTANT"}),
    "further than the map": (
        *("pad-fix", (18, 5, 4), 4),
        {"paddings": [0, 0, 6, 6, 0, 0, 0, 0], "mode": "REFLECT"},
    ),
    "the batch's axis": ("argmax-fix", (6, 5, 4), 0, {"axis": 0}),
}


def test_scales_of_other_lengths_or_axes_are_refused_by_name():
    for type_, more, message in (
        ("prelu", {}, r"'prelu\d+' \(prelu\): its weight has 3 values for 4 channels"),
        ("scale", {"axis": 1}, r"'scale\d+' \(scale\): axis 1; only the channels', the last"),
    ):
        f = FloatGraph()
        f.add(type_, f.const(np.ones(3)), **more)
        with pytest.raises(UserError, match=message):
            Emulator(f.split())


@pytest.mark.parametrize("case", WRONG)
def test_integer_ops_that_do_not_fit_are_refused_by_name(case):
    message = {
        "another grid": r"'op' \(pad-fix\): its input has fix_point 4, its output 3",
        "further than the map": r"'op' \(pad-fix\): paddings .* reach beyond what mode REFLECT repeats",
        "the batch's axis": r"'op' \(argmax-fix\): axis 0 of 4",
    }[case]
    with pytest.raises(UserError, match=message):
        Emulator(integer_graph(*WRONG[case]))
