"""The first deviating layer: a stage is damaged on purpose, and the right layer is named."""

import copy

import numpy as np
import pytest
from hand_network import hand_network

from dpuflow.base.errors import UserError
from dpuflow.board.dump import dump_name
from dpuflow.deviation import machine_code
from dpuflow.deviation.diagnose import Sources, diagnose, verdict
from dpuflow.deviation.difference import Difference, Likeness
from dpuflow.deviation.floats import counterparts
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.isa.code import decode, encode
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.emulator import Emulator
from dpuflow.network import Layer, Network
from dpuflow.quantize.folding import fold
from dpuflow.quantize.reference import quantize
from dpuflow.records import write_record
from dpuflow.report.deviation import deviation_view, write_deviation
from dpuflow.xir import Graph

SCALING = {"subtract": 128, "divide": 128}
SHAPE = (10, 9, 3)
CONV = {"kernel": (3, 3), "stride": (1, 1), "dilation": (1, 1), "pad": (1, 1, 1, 1)}

POOL = {"kernel": (2, 2), "stride": (2, 2), "pad": (0, 0, 0, 0)}


def float_network():
    """conv-bn-relu, depthwise, add, max pool in front of a ReLU, dense: borders that folding moves."""
    rng = np.random.default_rng(4)

    def values(*shape):
        return (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    def small(n):
        return (0.1 * rng.normal(size=n)).astype(np.float32)

    layers = [
        Layer("image", "input", [], SHAPE),
        Layer("stem", "conv", ["image"], (10, 9, 8), {**CONV, "activation": "NONE"}, 2 * values(8, 3, 3, 3)),
        Layer("norm", "batch_norm", ["stem"], (10, 9, 8), {}, 1 + small(8), small(8)),
        Layer("stem_relu", "relu", ["norm"], (10, 9, 8)),
        Layer(
            "deep", "depthwise_conv", ["stem_relu"], (10, 9, 8), {**CONV, "activation": "NONE"},
            values(1, 3, 3, 8) * 3, small(8),
        ),
        Layer("sum", "add", ["stem_relu", "deep"], (10, 9, 8), {"activation": "NONE"}),
        Layer(
            "last", "conv", ["sum"], (10, 9, 16), {**CONV, "activation": "NONE"},
            2 * values(16, 3, 3, 8), small(16),
        ),
        Layer("pool", "max_pool", ["last"], (5, 4, 16), dict(POOL)),
        Layer("late_relu", "relu", ["pool"], (5, 4, 16)),
        Layer("flat", "flatten", ["late_relu"], (320,)),
        Layer("scores", "dense", ["flat"], (6,), {"activation": "NONE"}, 2 * values(6, 320), small(6)),
    ]  # fmt: skip
    return Network("net", layers)


def pictures(count):
    return np.random.default_rng(1).integers(0, 256, (count, *SHAPE), np.uint8)


IMAGES = [(i, image) for i, image in enumerate(pictures(2))]


@pytest.fixture(scope="module")
def made():
    """(float network, quantized network, compiled graph with machine code)."""
    network = float_network()
    settings = {"diagnosis": False}
    quantized, _ = quantize(copy.deepcopy(network), pictures(16), settings, SCALING)
    compiled = compile_native(quantized, get_target("kv260"), calibration=pictures(4))
    return network, quantized, compiled.graph


def found(tmp_path, network, quantized, graph, **more):
    path = tmp_path / "net.xmodel"
    graph.save(path, check=False)
    record = diagnose(Sources(path, network, SCALING, quantized, **more), IMAGES)
    write_record(tmp_path / "deviation.json", "deviation.schema.yaml", record)
    return record


def stage(record, name):
    return next(entry for entry in record["stages"] if entry["stage"] == name)


def copied(graph):
    return Graph.from_bytes(graph.to_bytes())


def parameters(graph):
    """(attributes of the DPU subgraph, bytes of REG_0)."""
    (subgraph,) = graph.subgraphs("DPU")
    return subgraph.attrs, bytearray(subgraph.attrs["reg_id_to_parameter_value"]["REG_0"])


def test_a_sound_run_is_within_its_tolerance_everywhere(tmp_path, made):
    record = found(tmp_path, *made)
    assert record["first"] is None and record["images"] == [0, 1]
    assert [entry["stage"] for entry in record["stages"]] == [
        "frozen", "folded", "quantized", "emulator", "machine_code",
    ]  # fmt: skip
    assert [row["layer"] for row in record["layers"]] == [
        "image",
        "stem",
        "deep",
        "sum",
        "last",
        "pool",
        "scores",
    ]
    for row in record["layers"][1:]:
        assert set(row["cells"]) == {"folded", "quantized", "emulator", "machine_code"}
        assert row["cells"]["emulator"]["max_lsb"] == row["cells"]["machine_code"]["different"] == 0
        assert row["cells"]["quantized"]["sqnr_db"] > 20
    assert verdict(record) == "every stage keeps to its tolerance in every layer"


@pytest.mark.fault("models", "first deviating layer: a weight of the xmodel flipped", "refused")
def test_maps_that_lie_inside_of_a_concat_are_read_with_its_strides(tmp_path):
    rng = np.random.default_rng(8)

    def conv(name, source, channels):
        kernel = (rng.normal(size=(channels, 3, 3, source[1])) / 5).astype(np.float32)
        return Layer(name, "conv", [source[0]], (10, 9, channels), {**CONV, "activation": "RELU"}, kernel,
                     np.zeros(channels, np.float32))  # fmt: skip

    layers = [
        Layer("image", "input", [], SHAPE),
        conv("one", ("image", 3), 16),
        conv("two", ("one", 16), 16),
        Layer("joined", "concat", ["one", "two"], (10, 9, 32), {"axis": 3}),
    ]
    network = Network("net", layers)
    quantized, _ = quantize(copy.deepcopy(network), pictures(16), {"diagnosis": False}, SCALING)
    graph = compile_native(quantized, get_target("kv260"), calibration=pictures(4)).graph
    record = found(tmp_path, network, quantized, graph)
    seen = {row["layer"]: row["cells"].get("machine_code") for row in record["layers"]}
    assert {name: cell["different"] for name, cell in seen.items() if cell} == {
        "one": 0,
        "two": 0,
        "joined": 0,
    }
    assert record["first"] is None


def test_a_weight_of_the_xmodel(tmp_path, made):
    network, quantized, graph = made
    graph = copied(graph)
    attrs, data = parameters(graph)
    weights = graph.op(graph.op("deep").inputs["weights"][0])
    data[weights.tensor.attrs["ddr_addr"] + 4] ^= 0x40
    attrs.set("reg_id_to_parameter_value", {"REG_0": bytes(data)}, "map_string_2_bytes")
    record = found(tmp_path, network, quantized, graph)
    assert record["first"] == {"stage": "emulator", "layer": "deep"}
    cell = record["layers"][2]["cells"]["emulator"]
    assert 0 < cell["different"] <= 2 * 90 and cell["first"]["image"] == 0  # one channel of both images
    assert cell["first"]["position"][2] == 4
    # the code runs on the file's parameters: equal to the emulator
    assert stage(record, "machine_code")["first"] is None
    assert stage(record, "quantized")["first"] is None


@pytest.mark.fault("models", "first deviating layer: an instruction of the machine code changed", "refused")
def test_an_instruction(tmp_path, made):
    network, quantized, graph = made
    graph = copied(graph)
    (subgraph,) = graph.subgraphs("DPU")
    code = decode(subgraph.attrs["mc_code"], "net")
    inits = [i for i, entry in enumerate(code) if entry.name == "CONVINIT"]
    at = inits[-2]  # the last convolution but one
    code[at].fields["shift_cut"] += 1
    subgraph.attrs.set("mc_code", encode(code), "bytes")
    record = found(tmp_path, network, quantized, graph)
    assert record["first"] == {"stage": "machine_code", "layer": "last"}
    told = stage(record, "machine_code")
    assert told["notes"] == [
        f"instructions that the native compiler writes otherwise: {at} (CONVINIT, of last)"
    ]
    # what comes before is equal, and on the chip
    assert record["layers"][3]["cells"]["machine_code"]["different"] == 0
    view = deviation_view(record)
    assert [row["layer"] for row in view["layers"] if row["first"]] == ["last"]


@pytest.mark.fault("models", "first deviating layer: an instruction that a DPU could not execute", "refused")
def test_code_that_breaks_a_rule(tmp_path, made):
    network, quantized, graph = made
    graph = copied(graph)
    (subgraph,) = graph.subgraphs("DPU")
    code = decode(subgraph.attrs["mc_code"], "net")
    at = [i for i, entry in enumerate(code) if entry.name == "CONV"][-1]
    code[at].dpdby = 0  # waits for nobody
    code[at].dpdon = 0
    subgraph.attrs.set("mc_code", encode(code), "bytes")
    record = found(tmp_path, network, quantized, graph)
    told = stage(record, "machine_code")
    assert record["first"] == {"stage": "machine_code", "layer": "scores"}
    assert told["stopped"] and told["words"].startswith("cannot run: ")


@pytest.mark.fault("models", "first deviating layer: a weight of the quantized network flipped", "refused")
def test_a_weight_of_the_quantized_network(tmp_path, made):
    network, quantized, graph = made
    quantized = copy.deepcopy(quantized)
    values, _ = quantized.weights["last"]
    values[3, 1, 1, 2] ^= 0x40
    record = found(tmp_path, network, quantized, graph)
    assert record["first"] == {"stage": "quantized", "layer": "last"}
    assert (
        "1 of 1152 int8 weights are no rounding of the float weight; the first, [3, 1, 1, 2]"
        in (stage(record, "quantized")["words"])
    )
    # the xmodel is of the sound one
    assert stage(record, "emulator")["first"] == "last"


@pytest.mark.fault("models", "first deviating layer: a weight of the frozen network changed", "refused")
@pytest.mark.parametrize("layer", ["stem", "deep", "last", "scores"])
def test_a_weight_of_the_frozen_network(tmp_path, made, layer):
    network, quantized, graph = made
    network = copy.deepcopy(network)
    network[layer].weights = network[layer].weights.copy()  # a copied layer shares them
    network[layer].weights.flat[7] += 1.0
    record = found(tmp_path, network, quantized, graph)
    assert record["first"] == {"stage": "folded", "layer": layer}
    assert stage(record, "quantized")["first"] is stage(record, "emulator")["first"] is None


def test_noise_beyond_what_is_allowed(tmp_path, made):
    network, quantized, graph = made
    path = tmp_path / "net.xmodel"
    graph.save(path, check=False)
    sources = Sources(path, network, SCALING, quantized)
    sound = diagnose(sources, IMAGES)
    noise = {row["layer"]: row["cells"]["quantized"]["sqnr_db"] for row in sound["layers"][1:]}
    limit = (sorted(noise.values())[0] + sorted(noise.values())[1]) / 2
    record = diagnose(sources, IMAGES, limit)
    assert record["first"] == {"stage": "quantized", "layer": min(noise, key=noise.get)}
    assert "SQNR" in stage(record, "quantized")["words"]


def dump(folder, emulator, image):
    """All maps of an image as a runtime dumps them."""
    folder.mkdir()
    values = emulator.run(emulator.quantize_input(image[None]), dump=True)
    for op in emulator.graph.ops:
        if op.name in values and values[op.name].dtype == np.int8:
            (folder / f"0.{dump_name(op.tensor.name)}.bin").write_bytes(values[op.name].tobytes())


@pytest.mark.fault("models", "first deviating layer: a tensor of a board's dump changed", "refused")
def test_a_dump(tmp_path, made):
    network, quantized, graph = made
    emulator = Emulator(copied(graph))
    dump(tmp_path / "dump", emulator, IMAGES[1][1])
    record = found(tmp_path, network, quantized, graph, dump=tmp_path / "dump", dumped=1, board=True)
    assert record["first"] is None and stage(record, "board")["compared"] == 7
    path = tmp_path / "dump" / f"0.{dump_name(emulator.graph.op('sum').tensor.name)}.bin"
    data = bytearray(path.read_bytes())
    data[8 * 9 + 5] ^= 1  # row 1, column 0, channel 5
    path.write_bytes(bytes(data))
    record = found(tmp_path, network, quantized, graph, dump=tmp_path / "dump", dumped=1, board=True)
    assert record["first"] == {"stage": "board", "layer": "sum"}
    cell = record["layers"][3]["cells"]["board"]
    assert (cell["different"], cell["elements"], cell["max_lsb"]) == (1, 720, 1)
    assert cell["first"]["image"] == 1 and cell["first"]["position"] == [1, 0, 5]


def test_a_board_that_told_of_its_layers_or_of_nothing(tmp_path, made):
    network, quantized, graph = made
    told = {
        "image": 5, "compared": ["stem", "deep"], "not_dumped": 4,
        "first_different": {"op": "deep", "tensor": "deep", "type": "depthwise-conv2d-fix", "different": 3,
                            "elements": 720, "position": [0, 1, 2], "board": 7, "emulator": 8},
    }  # fmt: skip
    record = found(tmp_path, network, quantized, graph, told=told, board=True)
    assert record["first"] == {"stage": "board", "layer": "deep"}
    assert (
        "3 of 720 values differ from the emulator, the first at [0, 1, 2] of image 5: 7 instead of 8"
        in (stage(record, "board")["words"])
    )
    record = found(tmp_path, network, quantized, graph, board=True)
    assert record["first"] is None and "options: {dump: 0}" in stage(record, "board")["notes"][0]


def test_an_xmodel_alone(tmp_path, made):
    """Of somebody's compiled file there is nothing that its maps could be compared with but its code."""
    record = found(tmp_path, None, None, made[2])
    assert [entry["stage"] for entry in record["stages"]] == ["emulator", "machine_code"]
    assert record["first"] is None and len(record["layers"]) == 7
    assert stage(record, "machine_code")["compared"] == 6


def test_code_of_another_compiler_is_compared_where_it_can_be_seen(tmp_path, made, monkeypatch):
    monkeypatch.setattr(machine_code, "_own_code", lambda *_: (None, []))
    network, quantized, graph = made
    record = found(tmp_path, network, quantized, graph)
    told = stage(record, "machine_code")
    assert told["first"] is None and told["compared"] >= 1 and "only the maps" in told["notes"][0]
    assert record["layers"][-1]["cells"]["machine_code"]["different"] == 0
    # a network whose output is reshaped in front of its download
    path = tmp_path / "hand.xmodel"
    compile_native(hand_network(), get_target("kv260")).graph.save(path)
    graph = Graph.load(path)
    (download,) = (op for op in graph.ops if op.type == "download")
    assert machine_code._computed(graph, download.name) == "fc2"


def test_files_of_different_networks(tmp_path, made):
    _, quantized, graph = made
    quantized = copy.deepcopy(quantized)
    layer = quantized.network["scores"]
    for table in (quantized.weights, quantized.biases):
        values, fix_point = table["scores"]
        table["scores"] = (values[:5], fix_point)
    layer.shape, layer.weights, layer.bias = (5,), layer.weights[:5], layer.bias[:5]
    with pytest.raises(UserError, match=r"'scores' has 6 values in the stage emulator, 5 before"):
        found(tmp_path, None, quantized, graph)


def test_the_page(tmp_path, made):
    record = found(tmp_path, *made)
    run = {"dataset": "d", "model": "net", "quantizer": "q", "target": "t", "runner": "r"}
    write_deviation(record, tmp_path / "page.html", run)
    text = (tmp_path / "page.html").read_text()
    assert "every stage keeps to its tolerance in every layer" in text
    assert text.count("<code>scores</code>") == 1 and "net on d (q / t / r)" in text
    view = deviation_view(record, rows=3)
    assert len(view["layers"]) == 3 and view["left"] == 4
    assert deviation_view(None) is None


def test_counterparts_of_folded_layers():
    network = float_network()
    folded, _ = fold(copy.deepcopy(network))
    pairs = counterparts(network, folded)
    assert pairs["stem"] == ["stem", "norm", "stem_relu"]
    assert pairs["pool"] == ["pool", "late_relu"] and pairs["last"] == ["last"]


def test_differences_are_counted_in_steps():
    difference = Difference(0.25)
    difference.add(3, np.array([[1.0, 2.0]]), np.array([[1.0, 1.5]]))
    difference.add(4, np.array([[0.0, 2.0]]), np.array([[0.25, 2.0]]))
    cell = difference.cell(False)
    assert (cell["different"], cell["elements"], cell["max_lsb"], cell["mean_lsb"]) == (2, 4, 2, 0.75)
    assert cell["first"] == {"image": 3, "position": [0, 1], "expected": 8, "found": 6}
    assert cell["sqnr_db"] == pytest.approx(10 * np.log10(9 / 0.3125), rel=1e-5)


def test_likeness_allows_a_factor_for_each_channel_and_nothing_else():
    a = np.random.default_rng(0).normal(size=(4, 5, 3))
    scaled, mixed = Likeness(), Likeness()
    scaled.add(a, a * [2.0, 0.1, 30.0])
    mixed.add(a, a[..., ::-1])
    assert scaled.sqnr_db is None
    assert mixed.sqnr_db < 3
    few = Likeness()  # one factor for all: a vector of one image would be like any other
    few.add(a[0, 0], a[0, 0] * [2.0, 0.1, 30.0])
    assert few.sqnr_db < 20
