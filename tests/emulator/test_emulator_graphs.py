"""The Emulator on whole graphs: random ones against the oracle, blocks, threads, parts, faults."""

import numpy as np
import pytest
from compiled_kernels import need_compiled_kernels
from hypothesis import given, settings
from hypothesis import strategies as st

from dpuflow.base.errors import UserError
from dpuflow.base.pixels import input_table
from dpuflow.emulator import Emulator, c_kernels, oracle, random_cases, selfcheck
from dpuflow.emulator.operations import Pool
from dpuflow.xir import Graph


def small_graph(seed=1):
    return random_cases.graph(np.random.default_rng(seed))


def batch_for(graph, count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(-128, 128, (count, *graph.ops[0].tensor.shape[1:])).astype(np.int8)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1))
def test_random_graphs_equal_the_oracle_in_every_tensor(seed):
    rng = np.random.default_rng(seed)
    graph = random_cases.graph(rng)
    batch = random_cases.values(rng, (int(rng.integers(1, 5)), *graph.ops[0].tensor.shape[1:]))
    assert selfcheck.graph_differences(graph, batch) == []


def test_five_hundred_selfcheck_cases(capsys):
    assert selfcheck.main(["--cases", "500", "--seed", "7"]) == 0
    assert "500 cases" in capsys.readouterr().out


def test_results_do_not_depend_on_blocks_threads_or_backend():
    graph = small_graph()
    batch = batch_for(graph, 150)
    whole = Emulator(graph, threads=1, use_native=False).run(batch)
    assert whole.dtype == np.float32
    assert whole.shape[0] == 150
    for threads in (1, 2):
        for use_native in (False, True):
            emulator = Emulator(graph, threads=threads, use_native=use_native)
            np.testing.assert_array_equal(emulator.run(batch), whole)
            one_by_one = np.concatenate([emulator.run(batch[i : i + 1]) for i in range(5)])
            np.testing.assert_array_equal(one_by_one, whole[:5])


def test_an_empty_batch_gives_an_empty_result():
    graph = small_graph()
    result = Emulator(graph).run(batch_for(graph, 0))
    assert result.shape == (0, graph.ops[-1].tensor.shape[1])


def test_a_file_gives_what_its_graph_gives(tmp_path):
    graph = with_parts(small_graph())
    graph.save(tmp_path / "net.xmodel", check=False)  # without a compiler's subgraph attributes
    batch = batch_for(graph, 3)
    np.testing.assert_array_equal(Emulator(tmp_path / "net.xmodel").run(batch), Emulator(graph).run(batch))


def test_softmax_is_that_of_the_dequantised_logits():
    graph = small_graph(3)
    tensors = Emulator(graph).run(batch_for(graph, 4), dump=True)
    logits = tensors["flat"] * 2.0 ** -graph.op("flat").tensor.fix_point
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(tensors["softmax"], expected, rtol=1e-6)
    np.testing.assert_array_equal(tensors["logits"], logits)


def test_dump_holds_int8_for_every_integer_op():
    graph = small_graph()
    tensors = Emulator(graph).run(batch_for(graph, 2), dump=True)
    for op in graph.ops:
        if op.type == "const-fix":
            assert op.name not in tensors
        elif op.tensor.data_type == "XINT":
            assert tensors[op.name].dtype == np.int8
            assert tensors[op.name].shape == (2, *op.tensor.shape[1:])


def with_parts(graph):
    """Give the graph the three subgraphs of a compiled file."""
    devices = {"data-fix": "USER", "fix2float": "CPU", "softmax": "CPU"}
    for device in ("USER", "DPU", "CPU"):
        names = [op.name for op in graph.ops if devices.get(op.type, "DPU") == device]
        child = graph.root.add_child(f"subgraph_{device}", names)
        child.attrs["device"] = device
    return graph


def test_parts_one_after_the_other_equal_the_whole():
    graph = with_parts(small_graph())
    emulator, batch = Emulator(graph), batch_for(graph, 3)
    user, dpu, cpu = emulator.parts
    assert (user.device, dpu.device, cpu.device) == ("USER", "DPU", "CPU")
    middle = emulator.run_subgraph(1, {"input": batch})
    assert list(middle) == ["flat_download_0"]
    assert middle["flat_download_0"].dtype == np.int8
    last = emulator.run_subgraph("subgraph_CPU", middle)
    np.testing.assert_array_equal(last["softmax"], emulator.run(batch))
    upload = emulator.run_subgraph(1, {"input_upload_0": batch})
    np.testing.assert_array_equal(upload["flat_download_0"], middle["flat_download_0"])
    with pytest.raises(UserError, match="needs an input called 'input'"):
        emulator.run_subgraph(1, {"nonsense": batch})
    with pytest.raises(UserError, match="there is no subgraph 'x'"):
        emulator.run_subgraph("x", {})


def test_parameters_in_the_subgraph_instead_of_the_ops():
    """The vendor's compiler leaves data empty and fills reg_id_to_parameter_value."""
    graph, batch = with_parts(small_graph()), batch_for(small_graph(), 2)
    expected = Emulator(graph).run(batch)
    region = bytearray()
    for op in graph.ops:
        if op.type == "const-fix":
            op.tensor.attrs.set("reg_id", 0, "int32")
            op.tensor.attrs.set("ddr_addr", len(region), "int32")
            region += op.attrs["data"] + bytes(-len(op.attrs["data"]) % 4096)
            op.attrs["data"] = b""
    dpu = graph.subgraphs("DPU")[0]
    with pytest.raises(UserError, match="holds no data"):
        Emulator(graph)
    dpu.attrs.set("reg_id_to_parameter_value", {"REG_0": bytes(region)}, "map_string_2_bytes")
    np.testing.assert_array_equal(Emulator(graph).run(batch), expected)
    dpu.attrs.set("reg_id_to_parameter_value", {"REG_0": bytes(region[:100])}, "map_string_2_bytes")
    with pytest.raises(UserError, match="reach beyond the 100 bytes"):
        Emulator(graph)
    op = next(op for op in graph.ops if op.type == "const-fix" and len(op.tensor.shape) == 4)
    dpu.attrs.set("reg_id_to_parameter_value", {"REG_0": bytes(region)}, "map_string_2_bytes")
    kernel = op.tensor.shape
    plain = [kernel[1] * kernel[2] * kernel[3], kernel[2] * kernel[3], kernel[3], 1]
    op.tensor.attrs["stride"] = plain
    np.testing.assert_array_equal(Emulator(graph).run(batch), expected)
    op.tensor.attrs["stride"] = [16 * step for step in plain[:3]] + [1]
    with pytest.raises(UserError, match=rf"'{op.name}' \(const-fix\): its .* that layout is not known"):
        Emulator(graph)


@pytest.mark.parametrize("shift", [-2, -3, -5])
def test_a_compiled_bias_below_the_instructions_range_is_stored_shifted(shift):
    """The file holds floor(b * 2**(shift_bias + 1)), its fix_point the old one
    (docs/reference/numerics.md, "Convolution")."""
    rng = np.random.default_rng(-shift)
    build = random_cases.GraphBuilder(rng, (6, 6, 3), 4)
    x = build.conv(build.last, 8, (3, 3), activation="NONE")
    graph = build.finish(x)
    bias = graph.op(x.inputs["bias"][0])
    bias.tensor.attrs["fix_point"] = 4 + 7 - shift
    batch = batch_for(graph, 20)
    exact = Emulator(graph).run(batch, dump=True)[x.name]  # no device: nothing was compiled
    for op in graph.ops:
        op.attrs.set("device", "DPU", "string")
    stored = np.floor(bias.array() * 2.0 ** (shift + 1)).astype(np.int8)
    bias.attrs["data"] = stored.tobytes()
    compiled = Emulator(graph).run(batch, dump=True)[x.name]
    # what the floor loses lies below the half bit that counts, so the numbers are the same
    np.testing.assert_array_equal(compiled, exact)
    assert len(np.unique(exact)) > 20


def test_quantize_input_uses_the_recorded_scaling():
    graph = random_cases.sign_network(np.random.default_rng(0), widths=(4,), hidden=8)
    emulator = Emulator(graph)
    pixels = np.arange(784, dtype=np.uint16).astype(np.uint8).reshape(1, 28, 28)
    with pytest.raises(UserError, match="input_subtract"):
        emulator.quantize_input(pixels)
    graph.attrs["input_subtract"], graph.attrs["input_divide"] = 0.0, 255.0
    quantized = emulator.quantize_input(pixels)
    assert quantized.shape == (1, 28, 28, 1)
    assert quantized.dtype == np.int8
    np.testing.assert_array_equal(quantized.reshape(-1), input_table(0, 255, 6)[pixels.reshape(-1)])
    with pytest.raises(UserError, match="uint8 pixels expected"):
        emulator.quantize_input(pixels.astype(float))
    with pytest.raises(UserError, match="do not fit"):
        emulator.quantize_input(pixels[:, :5])
    for divide in (0.0, float("nan")):
        graph.attrs["input_divide"] = divide
        with pytest.raises(UserError, match=rf"divide {divide}: expected .*; the file is damaged"):
            emulator.quantize_input(pixels)


@pytest.mark.fault("xmodel", "batch of another type or shape", "refused")
def test_wrong_batches_are_refused():
    graph = small_graph()
    emulator, batch = Emulator(graph), batch_for(graph, 2)
    with pytest.raises(UserError, match="int8 expected"):
        emulator.run(batch.astype(np.float32))
    with pytest.raises(UserError, match="expected"):
        emulator.run(batch[:, :-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda op: op.tensor.attrs.__setitem__("round_mode", "STD_ROUND"), "round_mode STD_ROUND"),
        (lambda op: setattr(op.tensor, "bit_width", 16), "16-bit output"),
        (lambda op: op.tensor.attrs.__delitem__("fix_point"), "has no fix_point"),
        (lambda op: op.attrs.__setitem__("nonlinear", "PRELU"), "nonlinear 'PRELU'"),
    ],
)
def test_what_the_dpu_cannot_do_is_named(change, message):
    graph = small_graph()
    conv = next(op for op in graph.ops if op.type == "conv2d-fix")
    change(conv)
    with pytest.raises(UserError, match=message):
        Emulator(graph).run(batch_for(graph, 1))


def test_another_leaky_slope_is_refused():
    """The attribute of compiled files says what the hardware does, 26 / 256, or the file is not for it."""
    build = random_cases.GraphBuilder(np.random.default_rng(0), (4, 4, 3), 4)
    conv = build.conv(build.last, 8, (1, 1), activation="LEAKYRELU")
    graph = build.finish(conv)
    batch = batch_for(graph, 2)
    expected = Emulator(graph).run(batch)
    conv.attrs["LEAKYRELU_alpha"] = 0.1015625
    assert conv.attrs.kind("LEAKYRELU_alpha") == "float"
    np.testing.assert_array_equal(Emulator(graph).run(batch), expected)
    conv.attrs["LEAKYRELU_alpha"] = 0.125
    with pytest.raises(UserError, match=r"LEAKYRELU_alpha 0.125; the DPU only knows 0.1015625"):
        Emulator(graph)


def quantized_pair(rng):
    """The same small network as an uncompiled graph (float with fix) and as integer ops."""
    fake, real = Graph("fake"), random_cases.GraphBuilder(rng, (8, 8, 3), 5)
    x = real.conv(real.last, 8, (3, 3), pad=(1, 1, 1, 1), activation="RELU")
    pooled = real.pool(x, "AVG", (3, 3), (1, 1))
    y = real.conv(pooled, 8, (3, 3), pad=(1, 1, 1, 1), activation="NONE")
    total = real.add([pooled, y])
    logits = real.dense(total, 5)
    compiled = real.finish(logits)

    def fix(name, point):
        attrs = {"fix_point": point, "bit_width": 8, "round_mode": "DPU_ROUND", "if_signed": True}
        return fake.add_op(f"{name}_fix", "fix", {"input": [name]}, attrs).name

    def constant(name, array):
        data = array.astype(np.float32).tobytes()
        fake.add_op(name, "const", None, {"shape": list(array.shape), "data_type": "float32", "data": data})
        return name

    def parameter(op, argument):
        source = compiled.op(op.inputs[argument][0])
        name = constant(source.name, source.array() * 2.0**-source.tensor.fix_point)
        return fix(name, source.tensor.fix_point)

    def conv(op, feeder):
        attrs = {key: op.attr(key) for key in ("kernel", "stride", "dilation", "pad", "group")}
        inputs = {"input": [feeder], "weights": [parameter(op, "weights")], "bias": [parameter(op, "bias")]}
        name = fake.add_op(op.name, "conv2d", inputs, {**attrs, "pad_mode": "FLOOR"}).name
        if op.attr("nonlinear") == "RELU":
            name = fake.add_op(f"{op.name}_relu", "relu", {"input": [name]}).name
        return fix(name, op.tensor.fix_point)

    fake.add_op("input", "data", None, {"shape": [1, 8, 8, 3], "data_type": "FLOAT32"})
    first = conv(x, fix("input", 5))
    window = {"kernel": [3, 3], "stride": [1, 1], "pad": [0, 0, 0, 0], "pad_mode": "FLOOR"}
    fake.add_op("average", "avgpool2d", {"input": [first]}, window)
    constant("scale", np.array([63 / 64]))
    fake.add_op("scaled", "mul", {"input": ["average", "scale"]})
    mean = fix("scaled", pooled.tensor.fix_point)
    second = conv(y, mean)
    fake.add_op("sum", "add", {"input": [mean, second]})
    conv(logits, fix("sum", total.tensor.fix_point))
    return fake, compiled, logits


@pytest.mark.parametrize("seed", range(8))
def test_uncompiled_graph_equals_the_integer_form(seed):
    rng = np.random.default_rng(seed)
    fake, compiled, logits = quantized_pair(rng)
    batch = rng.integers(-128, 128, (6, 8, 8, 3)).astype(np.int8)
    integers = Emulator(compiled).run(batch, dump=True)
    emulator = Emulator(fake)
    assert emulator.input_fix_point == 5
    floats = emulator.run(batch, dump=True)
    types = {"sum_fix": "eltwise-fix", "scaled_fix": "pool-fix"}
    for name in (f"{logits.name}_fix", "sum_fix", "scaled_fix"):
        twin = next((op for op in compiled.ops if op.type == types.get(name)), logits)
        np.testing.assert_array_equal(floats[name], integers[twin.name] * 2.0**-twin.tensor.fix_point)


def test_numpy_can_be_forced_by_the_environment(monkeypatch, caplog):
    monkeypatch.setenv("DPUFLOW_EMULATOR", "numpy")
    c_kernels.library.cache_clear()
    try:
        assert Emulator(small_graph()).backend == "numpy"
    finally:
        c_kernels.library.cache_clear()
    assert "the emulator runs on NumPy, " in caplog.text and "DPUFLOW_EMULATOR=numpy" in caplog.text


def test_another_word_in_the_environment_is_an_error(monkeypatch):
    monkeypatch.setenv("DPUFLOW_EMULATOR", "numpi")
    c_kernels.library.cache_clear()
    try:
        with pytest.raises(UserError, match=r"DPUFLOW_EMULATOR='numpi'; expected \"numpy\""):
            Emulator(small_graph())
    finally:
        c_kernels.library.cache_clear()


def test_a_machine_without_compiler_falls_back(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("CC", str(tmp_path / "no-compiler"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    c_kernels.library.cache_clear()
    try:
        assert Emulator(small_graph()).backend == "numpy"
    finally:
        c_kernels.library.cache_clear()
    assert "the emulator runs on NumPy, " in caplog.text and "no-compiler" in caplog.text


def test_a_read_only_home_costs_the_cache_only(monkeypatch, tmp_path):
    need_compiled_kernels()
    occupied = tmp_path / "file"
    occupied.write_text("a file where the cache folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(occupied))
    c_kernels.library.cache_clear()
    try:
        assert Emulator(small_graph()).backend == "native"
        assert selfcheck.main(["--cases", "10"]) == 0
    finally:
        c_kernels.library.cache_clear()


def test_the_oracle_refuses_what_it_does_not_know():
    with pytest.raises(TypeError):
        oracle.apply("conv", np.zeros(1, np.int8))
    assert oracle.apply(Pool("MAX", (1, 1), (1, 1), (0,) * 4, 0), np.ones((1, 1, 1, 1), np.int8)).item() == 1
