"""Compiled files of other people: run as they are, on a data set whose images and classes fit."""

import numpy as np
import pytest
from hand_network import INPUT_SHAPE, hand_network

from dpuflow.base.errors import UserError
from dpuflow.compiler.own_xmodel import prepared
from dpuflow.compiler.quantized_graph import quantized_graph
from dpuflow.compiler.reference import lower
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.isa.runner import IsaRunner
from dpuflow.emulator import Emulator
from dpuflow.xir import Graph
from dpuflow.xir.input_scaling import recorded_scaling

TARGET = get_target("DPUCZDX8G_ISA1_B4096")
SCALING = {"subtract": 0, "divide": 255}
CLASSES = hand_network().network.output.shape[-1]


@pytest.fixture
def compiled(tmp_path):
    """A file of another tool: without what only dpuflow writes."""
    graph = lower(hand_network(), TARGET)
    for key in ("input_subtract", "input_divide", "class_count", "return_ops", "origin"):
        if key in graph.attrs:
            del graph.attrs[key]
    graph.save(tmp_path / "c.xmodel")
    return tmp_path / "c.xmodel"


@pytest.mark.parametrize("file", ["mnist_28_tf2_b4096_3.5", "mnist_28_pt_b4096_2.5"])
def test_the_vendor_s_file_gives_the_vendor_s_integers(shared, tmp_path, file):
    vectors = np.load(shared(f"golden/wild/{file}.npz"))
    graph, notes = prepared(shared(f"golden/wild/{file}.xmodel"), (28, 28, 1), 10, SCALING, TARGET)
    graph.save(tmp_path / "p.xmodel", check=False)
    path = tmp_path / "p.xmodel"
    assert recorded_scaling(Graph.load(path)) == SCALING
    emulator = Emulator(path)
    pixels = np.random.default_rng(1).integers(0, 256, (2, 28, 28, 1), dtype=np.uint8)
    scaled = np.floor(pixels / 255 * 2**emulator.input_fix_point + 0.5)
    np.testing.assert_array_equal(emulator.quantize_input(pixels), np.clip(scaled, -128, 127))
    given = vectors["sub0_input_0"]
    assert emulator.run(given).shape == (len(given), 10) and len(emulator.outputs) == 1
    wanted = vectors["sub0_output_0"].reshape(len(given), -1)
    logits = IsaRunner(path).logits(given).reshape(len(given), -1)
    np.testing.assert_array_equal(logits, wanted)
    np.testing.assert_array_equal(emulator.run(given).argmax(1), IsaRunner(path).run(given).argmax(1))
    assert any("2.5" in note for note in notes) == ("2.5" in file)


def test_what_the_file_does_not_say_is_written_into_it(compiled, tmp_path):
    graph, notes = prepared(compiled, INPUT_SHAPE, CLASSES, SCALING, TARGET)
    graph.save(tmp_path / "p.xmodel")
    emulator = Emulator(tmp_path / "p.xmodel")
    images = np.random.default_rng(2).integers(0, 256, (3, *INPUT_SHAPE), dtype=np.uint8)
    original = Emulator(compiled)
    x = emulator.quantize_input(images)
    np.testing.assert_array_equal(emulator.run(x), original.run(x))
    assert notes[0].startswith("input 'x', fix_point") and "output" in notes[1] and len(notes) == 2


REFUSED = {
    "other images": (
        {"image_shape": (12, 11, 3)},
        r"takes 13x11 images with 3 channels .*, the data set's images are 12x11",
    ),
    "other classes": (
        {"classes": CLASSES + 1},
        r"no output has one value for each of the data set's \d+ classes, so it has no accuracy; its out",
    ),
    "no such output": ({"output": "nothing"}, r"has no op 'nothing' \(models\.NAME\.output_node\)"),
    "no scaling": ({"scaling": None}, r"does not say how pixels become its input"),
}


@pytest.mark.fault("models", "compiled xmodel that does not fit the data set", "refused")
@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_refused(compiled, what):
    change, message = REFUSED[what]
    given = {"image_shape": INPUT_SHAPE, "classes": CLASSES, "scaling": SCALING, "target": TARGET} | change
    with pytest.raises(UserError, match=message) as raised:
        prepared(compiled, **given)
    assert "c.xmodel" in str(raised.value) and "\n" not in str(raised.value)


def test_a_graph_that_is_not_compiled_is_told_apart(tmp_path):
    quantized_graph(hand_network()).save(tmp_path / "q.xmodel")
    with pytest.raises(UserError, match=r"is not compiled .*models\.NAME\.quantized instead of xmodel"):
        prepared(tmp_path / "q.xmodel", INPUT_SHAPE, CLASSES, SCALING, TARGET)


def test_of_several_outputs_one_is_named(shared):
    path = shared("golden/wild/yolov5n_640_pt_b4096_2.5.xmodel")
    with pytest.raises(UserError, match=r"so it has no accuracy; its outputs: '.*\[80, 80, 54\]"):
        prepared(path, (640, 640, 3), 10, SCALING, TARGET)


def test_every_output_of_a_compiled_file_stays_where_none_is_the_class(shared):
    path, shape = shared("golden/wild/yolov5n_640_pt_b4096_2.5.xmodel"), (640, 640, 3)
    graph, _ = prepared(path, shape, 10, SCALING, TARGET, answer="none")
    original = [op.name for op in Emulator(path, subgraphs=[]).outputs]
    assert len(original) == 3
    assert graph.attrs["return_ops"] == graph.attrs["output_names"] == original
    named = {"large": original[0], "small": original[2]}
    graph, _ = prepared(path, shape, 10, SCALING, TARGET, output=named, answer="none")
    assert graph.attrs["return_ops"] == [original[0], original[2]]
    assert graph.attrs["output_names"] == ["large", "small"] and "class_count" not in graph.attrs
    with pytest.raises(
        UserError, match=r"no output is called 'other' \(models\.NAME\.output\); it has 'large'"
    ):
        prepared(path, shape, 10, SCALING, TARGET, output=named, answer="other")
