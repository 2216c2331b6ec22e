"""Every stage gives every output of a network by its name, in one layout."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx_models import Model
from output_networks import SCALING, detector, images, two_outputs

from dpuflow.accuracy.outputs import OutputsSummary, compare_outputs, kept_places
from dpuflow.accuracy.stages import stage_record
from dpuflow.base.errors import UserError
from dpuflow.base.outputs import ONLY, answer_of
from dpuflow.compiler.quantized_graph import quantized_graph
from dpuflow.compiler.quantized_reading import read_quantized_graph
from dpuflow.compiler.reference import lower
from dpuflow.device.targets import get_target
from dpuflow.emulator.outputs import EmulatorStage
from dpuflow.keras_models.keras_import import import_model
from dpuflow.keras_models.outputs import KerasStage, output_names, require_one_output
from dpuflow.network.network_file import load_network
from dpuflow.onnx_graph.model_file import open_model
from dpuflow.onnx_graph.outputs import OnnxStage
from dpuflow.onnx_graph.reader import read_onnx
from dpuflow.quantize.kept import kept_report
from dpuflow.quantize.outputs import EngineStage, FloatStage
from dpuflow.quantize.reference import quantize, write_artifacts
from dpuflow.records import read_record
from dpuflow.tfgraph.network_graph import write_network_graph
from dpuflow.tfgraph.outputs import GraphStage
from dpuflow.tfgraph.take_over import take_over
from dpuflow.xir import Graph

SHAPE = (12, 10, 3)
PICTURES = np.random.default_rng(8).integers(0, 256, (9, *SHAPE)).astype(np.uint8)


@pytest.mark.parametrize("make", [two_outputs, detector])
def test_every_stage_of_a_network_gives_the_same_outputs(make, tmp_path):
    network = make()
    (pictures,) = images(network, 10).values()
    nodes = write_network_graph(tmp_path / "f.pb", network)
    nodes_of = {name: end["name"] for name, end in nodes["outputs"].items()}
    quantized, report = quantize(network, pictures, {"fast_finetune": False}, SCALING, output_name=nodes_of)
    write_artifacts(quantized, report, *(tmp_path / name for name in ("q.h5", "q.pb", "q.json")))
    floats = FloatStage(network, SCALING)
    frozen = GraphStage(tmp_path / "f.pb", nodes, SCALING)
    stages = {
        "engine": EngineStage(quantized),
        "graph": GraphStage(tmp_path / "q.pb", nodes, SCALING),
        "emulated": EmulatorStage(lower(quantized, get_target("kv260")), threads=1),
    }
    expected, found = floats(pictures), frozen(pictures)
    assert list(expected) == list(found) == list(network.outputs)
    for name in expected:
        assert frozen.shapes[name] == network.outputs[name].shape
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5)
    exact = stages["engine"](pictures)
    for name, stage in stages.items():
        assert stage.shapes == floats.shapes, name
        given = stage(pictures)
        assert list(given) == list(exact)
        for output, values in given.items():
            assert values.dtype == np.float32
            np.testing.assert_allclose(values, exact[output], rtol=2e-5, atol=2e-6)
    mask = two_outputs().outputs.get("mask")
    if make is two_outputs and mask is not None:  # of the DPU alone: to the last bit
        np.testing.assert_array_equal(stages["graph"](pictures)["mask"], exact["mask"])
        np.testing.assert_array_equal(stages["emulated"](pictures)["mask"], exact["mask"])


def two_heads(path, reshaped=False):
    """conv - relu - {conv: 2 x 5 channels per place, perhaps (2, 5, H, W); pool - gemm - softmax}."""
    model = Model((3, 12, 10))
    model.conv(3, 8, strides=[2, 2])
    trunk = model.node("Relu")
    boxes = model.conv(8, 10, kernel=1, source=trunk)
    if reshaped:
        boxes = model.node("Reshape", [boxes, model.constant(np.array([-1, 2, 5, 6, 5]))])
        boxes = model.node("Transpose", [boxes], perm=[0, 1, 3, 4, 2])
    model.node("GlobalAveragePool", [trunk])
    model.node("Flatten")
    model.node("Gemm", [model.last, model.numbers(4, 8), model.numbers(4)], transB=1)
    classes = model.node("Softmax", axis=1)
    proto = model.proto()
    proto.graph.output.insert(0, onnx.helper.make_tensor_value_info(boxes, 1, None))
    onnx.save(proto, str(path))
    return boxes, classes


@pytest.mark.parametrize("reshaped", [False, True])
def test_maps_of_an_onnx_model_stand_as_the_networks_layers_do(tmp_path, reshaped):
    boxes, classes = two_heads(tmp_path / "m.onnx", reshaped)
    stage = OnnxStage(tmp_path / "m.onnx", SHAPE, SCALING)
    assert stage.shapes == {boxes: (6, 5, 10), classes: (4,)}
    network = read_onnx(open_model(tmp_path / "m.onnx", SHAPE), SHAPE, "net")
    expected, found = FloatStage(network, SCALING)(PICTURES), stage(PICTURES)
    raw = stage.model.run_all((PICTURES.astype(np.float32) - 128) / 128)[boxes]
    raw = raw.transpose(0, 2, 3, 1, 4) if reshaped else raw.transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(found[boxes], raw.reshape(9, 6, 5, 10))
    for name in (boxes, classes):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5)


def test_outputs_of_an_onnx_model_are_chosen_and_named(tmp_path):
    boxes, classes = two_heads(tmp_path / "m.onnx")
    one = OnnxStage(tmp_path / "m.onnx", SHAPE, SCALING, output_name=boxes)
    assert one.shapes == {ONLY: (6, 5, 10)}
    named = OnnxStage(tmp_path / "m.onnx", SHAPE, SCALING, output_name={"class": classes, "box": boxes})
    assert list(named.shapes) == ["class", "box"]
    np.testing.assert_array_equal(named(PICTURES)["box"], one(PICTURES)[ONLY])
    with pytest.raises(UserError, match="no tensor or node 'nowhere' for the output; its outputs: "):
        OnnxStage(tmp_path / "m.onnx", SHAPE, SCALING, output_name=[boxes, "nowhere"])
    with pytest.raises(UserError, match="names that differ in signs only, or one twice"):
        open_model(tmp_path / "m.onnx", SHAPE, output_name=[boxes, boxes])


def test_sigmoid_and_softmax_of_a_map_end_a_network_on_the_cpu(tmp_path):
    model = Model((3, 12, 10))
    trunk = model.conv(3, 8, strides=[2, 2])
    mask = model.node("Sigmoid", [model.conv(8, 1, kernel=1, source=trunk)])
    model.node("Softmax", [model.conv(8, 4, kernel=1, source=trunk)], axis=1)
    proto = model.proto()
    proto.graph.output.insert(0, onnx.helper.make_tensor_value_info(mask, 1, None))
    onnx.save(proto, str(tmp_path / "m.onnx"))
    stage = OnnxStage(tmp_path / "m.onnx", SHAPE, SCALING)
    network = read_onnx(open_model(tmp_path / "m.onnx", SHAPE), SHAPE, "net")
    quantized, _ = quantize(network, PICTURES, {"fast_finetune": False}, SCALING)
    emulated = EmulatorStage(lower(quantized, get_target("kv260")), threads=1)
    exact, found, trained = EngineStage(quantized)(PICTURES), emulated(PICTURES), stage(PICTURES)
    assert emulated.shapes == stage.shapes == {mask: (6, 5, 1), model.last: (6, 5, 4)}
    for name in exact:
        np.testing.assert_allclose(found[name], exact[name], rtol=2e-5, atol=2e-6)
        np.testing.assert_allclose(exact[name], trained[name], atol=0.06)


def test_outputs_of_a_keras_model_go_by_its_names(tmp_path):
    from dpuflow.base.tensorflow_env import keras
    from dpuflow.keras_models.keras_file import save_model

    layers = keras().layers
    image = keras().Input(SHAPE)
    x = layers.Conv2D(4, 3, strides=2, activation="relu")(image)
    ends = layers.Conv2D(2, 1, name="mask")(x), layers.Dense(3, name="class")(layers.Flatten()(x))
    save_model(keras().Model(image, ends), tmp_path / "m.h5")
    stage = KerasStage(tmp_path / "m.h5", SCALING)
    assert stage.shapes == {"mask": (5, 4, 2), "class": (3,)}
    found = stage(PICTURES)
    assert {name: values.shape for name, values in found.items()} == {"mask": (9, 5, 4, 2), "class": (9, 3)}
    np.testing.assert_allclose(stage(PICTURES[:2])["mask"], found["mask"][:2], rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match=r"outputs 'mask' \[5, 4, 2\], 'class' \[3\]; a model"):
        require_one_output(stage.model, tmp_path / "m.h5")


def test_a_foreign_keras_file_keeps_its_outputs_and_their_names(tmp_path):
    from dpuflow.base.tensorflow_env import keras

    layers = keras().layers
    image = keras().Input(SHAPE)
    x = layers.Rescaling(1 / 128, offset=-1)(image)
    x = layers.Conv2D(4, 3, strides=2, activation="relu")(x)
    scores = layers.Dense(3, activation="softmax", name="class")(layers.Flatten()(x))
    scaled = layers.Rescaling(2.0, name="mask")(layers.Conv2D(2, 1)(x))
    original = keras().Model(image, [scaled, scores])
    original.save(tmp_path / "m.h5")
    model, _ = import_model(tmp_path / "m.h5", SHAPE, 3, answer="class")
    assert output_names(model) == ["mask", "class"]
    pixels = PICTURES.astype(np.float32)
    for found, expected in zip(model(pixels), original(pixels), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match=r"output 'mask': its output has the shape \(5, 4, 2\), the"):
        import_model(tmp_path / "m.h5", SHAPE, 3, answer="mask")
    with pytest.raises(UserError, match=r"2 outputs: 'mask' \[5, 4, 2\], 'class' \[3\]; say with"):
        import_model(tmp_path / "m.h5", SHAPE, 3)
    model, _ = import_model(tmp_path / "m.h5", SHAPE, 7, answer="none")
    assert output_names(model) == ["mask", "class"]


def test_a_frozen_graph_keeps_the_outputs_that_are_named(tmp_path):
    network = two_outputs()
    nodes = write_network_graph(tmp_path / "f.pb", network)
    given = {name: end["name"] for name, end in nodes["outputs"].items()}
    dataset = SimpleNamespace(shape=(12, 10, 3), class_names=["a", "b", "c", "d", "e"])
    made = {key: tmp_path / key for key in ("graph", "nodes", "network")}

    def taken(output, answer):
        wanted = {"input": None, "output": output}
        return take_over(tmp_path / "f.pb", wanted, dataset, "net", made, answer)

    taken({"map": given["mask"], "letter": f"{given['class']}:0"}, "letter")
    found = read_record(made["nodes"], "nodes.schema.yaml")
    assert {name: end["shape"] for name, end in found["outputs"].items()} == {
        "map": [None, 6, 5, 4],
        "letter": [None, 5],
    }
    (pixels,) = images(network, 5).values()
    read = load_network(made["network"])
    assert list(read.outputs) == ["map", "letter"]
    expected, values = FloatStage(read, SCALING)(pixels), GraphStage(made["graph"], found, SCALING)(pixels)
    for name in expected:
        np.testing.assert_allclose(values[name], expected[name], rtol=1e-4, atol=1e-5)
    taken([given["mask"], given["class"]], "none")
    assert list(load_network(made["network"]).outputs) == [given["mask"], given["class"]]
    with pytest.raises(UserError, match=r"f\.pb: has 2 outputs: .*; say with models\.NAME\.output"):
        taken([given["mask"], given["class"]], None)
    with pytest.raises(UserError, match=r"only the first output of a node can be one"):
        taken([f"{given['mask']}:1", given["class"]], "none")


def test_a_quantized_file_keeps_the_names_of_its_outputs(tmp_path):
    network = two_outputs()
    (pixels,) = images(network, 6).values()
    quantized, _ = quantize(network, pixels, {"fast_finetune": False}, SCALING)
    quantized_graph(quantized).save(tmp_path / "q.xmodel")
    read = read_quantized_graph(tmp_path / "q.xmodel", "net", None)
    assert list(read.network.outputs) == ["class", "mask"]
    report, nodes = kept_report(read)
    write_artifacts(read, report, *(tmp_path / name for name in ("q.h5", "q.pb", "q.json")))
    expected = EngineStage(quantized)(pixels)
    found = EngineStage(read)(pixels), GraphStage(tmp_path / "q.pb", nodes, SCALING)(pixels)
    for values in found:
        assert list(values) == ["class", "mask"]
        np.testing.assert_array_equal(values["mask"], expected["mask"])
        np.testing.assert_allclose(values["class"], expected["class"], rtol=1e-5, atol=1e-6)
    graph = Graph.load(tmp_path / "q.xmodel")
    for names, said in ((["class"], "1 names for its 2 outputs"), (["class"] * 2, "outputs of one name")):
        graph.attrs["output_names"] = names
        graph.save(tmp_path / "d.xmodel")
        with pytest.raises(UserError, match=said):
            read_quantized_graph(tmp_path / "d.xmodel", "net", None)
        with pytest.raises(UserError, match=said), EmulatorStage(tmp_path / "d.xmodel", threads=1) as stage:
            assert stage.shapes


# ---- records


class MadeUp:
    """A data set of nine pictures, and a stage of two outputs on it."""

    def __init__(self, change=0.0):
        self.class_names, self.labels = ["a", "b", "c"], np.tile([0, 1, 2], 3)
        self.shapes = {"class": (3,), "map": (2, 2, 1)}
        random = np.random.default_rng(3)
        self.values = {
            "class": random.normal(size=(9, 3)).astype(np.float32),
            "map": random.normal(size=(9, 2, 2, 1)).astype(np.float32),
        }
        self.values["map"][4, 1, 1, 0] += change

    def labels_in(self, name):
        return self.labels

    def batches(self, name):
        for start in (0, 4, 8):
            span = np.arange(start, min(start + 4, 9), dtype=np.uint8)
            yield span, self.labels[span]

    def __call__(self, images):
        return {name: values[images] for name, values in self.values.items()}


def test_a_record_has_the_accuracy_of_the_class_and_every_output():
    made = MadeUp()
    record = stage_record("frozen", made, made, "class")
    answers = made.values["class"].argmax(axis=1)
    assert record["predictions"] == answers.tolist()
    assert record["correct"] == int((answers == made.labels).sum())
    assert record["outputs"]["map"]["shape"] == [2, 2, 1]
    kept = made.values["map"].reshape(9, 4)
    expected = [kept[k][kept_places(k, 4, 9)] for k in range(9)]
    values = np.array(record["outputs"]["map"]["values"], np.float32)
    np.testing.assert_array_equal(values, np.concatenate(expected))


def test_without_a_class_there_is_no_accuracy():
    made = MadeUp()
    record = stage_record("frozen", made, made, "none")
    assert set(record) == {"stage", "split", "images", "labels_sha256", "outputs"}
    with pytest.raises(UserError, match=r"2 outputs: 'class' \[3\], 'map' \[2, 2, 1\]; say with"):
        stage_record("frozen", made, made, where="m.pb")
    with pytest.raises(UserError, match=r"m\.pb: no output is called 'klass'"):
        answer_of(made.shapes, "klass", "m.pb")
    assert answer_of({ONLY: (3,)}, None, "m.pb") == ONLY


def test_stages_are_compared_output_by_output():
    first, second = (MadeUp(change) for change in (0.0, 0.25))
    a, b = (stage_record("frozen", made, made, "none")["outputs"] for made in (first, second))
    found = compare_outputs(a, b)
    assert found["class"] == {"images": 9, "equal": 9, "max_difference": 0.0, "relative_error": 0.0}
    assert (found["map"]["equal"], found["map"]["max_difference"]) == (8, 0.25)
    size = np.sqrt(np.square(first.values["map"].astype(np.float64)).sum())
    assert found["map"]["relative_error"] == pytest.approx(0.25 / size, rel=1e-5)
    del b["map"]
    with pytest.raises(UserError, match="before has the outputs class, map, after class"):
        compare_outputs(a, b)


def test_an_output_that_is_no_number_is_refused():
    summary = OutputsSummary({"map": (2,)}, 3)
    summary.add({"map": np.zeros((2, 2), np.float32)})
    with pytest.raises(UserError, match="output 'map' of picture 2 is not finite"):
        summary.add({"map": np.array([[0, np.nan]], np.float32)})


def test_what_a_record_keeps_is_bounded_and_spread():
    assert len(kept_places(0, 10**6, 9)) == (1 << 16) // 9
    assert sorted(kept_places(5, 4, 9)) == [0, 1, 2, 3]
    assert len({place for k in range(2400) for place in kept_places(k, 1000, 2400)}) == 1000
