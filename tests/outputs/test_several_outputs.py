"""Networks with several outputs, several inputs and layers of the CPU, through every stage."""

from dataclasses import dataclass

import numpy as np
import pytest
from output_networks import SCALING, between, detector, images, two_inputs, two_outputs

from dpuflow.base.errors import UserError
from dpuflow.base.pixels import scale_pixels
from dpuflow.compiler.quantized_graph import quantized_graph
from dpuflow.compiler.reference import lower
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.compile_report import compile_reference
from dpuflow.dpuczdx8g.isa.runner import IsaRunner
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.emulator import Emulator
from dpuflow.network.check import check, check_network
from dpuflow.network.network_file import load_network, save_network
from dpuflow.network.quantized_file import read_quantized, write_quantized
from dpuflow.quantize import calibration, engine
from dpuflow.quantize.reference import quantize, write_artifacts
from dpuflow.records import read_record
from dpuflow.tfgraph.freeze import FrozenGraph
from dpuflow.xir import Graph

MAKERS = {"two": two_outputs, "detector": detector, "inputs": two_inputs, "between": between}


@dataclass
class Made:
    """A network, quantized, and what its integers give."""

    network: object
    quantized: object
    report: dict
    pixels: dict
    grids: dict
    expected: dict


@pytest.fixture(scope="module", params=MAKERS)
def made(request):
    network = MAKERS[request.param]()
    pixels = images(network, 12)
    quantized, report = quantize(network, pixels, {"fast_finetune": False}, SCALING)
    x = {name: scale_pixels(values, SCALING) for name, values in pixels.items()}
    grids = calibration.grids(quantized.fix_points, engine.by_input(quantized.network, x))
    values = engine.run_integer(quantized, grids)
    expected = {
        name: values[layer.name] * np.float32(2.0 ** -quantized.fix_points.get(layer.name, 0))
        for name, layer in quantized.network.outputs.items()
    }
    grids = {name: values.astype(np.int8) for name, values in grids.items()}
    return Made(network, quantized, report, pixels, grids, expected)


def outputs(runner, given):
    """{output's name: array} of what a runner or emulator gives for {input's name: int8 images}."""
    found = runner.run(given)
    graph = runner.graph
    if not isinstance(found, dict):
        return [found]
    assert list(found) == list(graph.attrs["return_ops"])
    return list(found.values())


def assert_equal(found, expected):
    for array, (name, wanted) in zip(found, expected.items(), strict=True):
        np.testing.assert_array_equal(array, wanted.reshape(array.shape), name)


def test_float_and_int8_answers_are_near(made):
    x = {name: scale_pixels(values, SCALING) for name, values in made.pixels.items()}
    reals = engine.run_float(made.network, x)
    for name, layer in made.network.outputs.items():
        real = reals[layer.name]
        if layer.op != "argmax":
            assert np.square(made.expected[name] - real).mean() < 0.01 * np.square(real).mean(), name


def test_every_end_is_measured(made):
    ends = [layer.name for layer in made.quantized.network.last_quantized]
    for step in made.report["steps"]:
        if len(ends) > 1:
            assert list(step["agreement_of_ends"]) == ends
            assert step["agreement"] == pytest.approx(
                np.mean(list(step["agreement_of_ends"].values())), abs=1e-4
            )
        else:
            assert "agreement_of_ends" not in step


def test_files_keep_the_outputs(made, tmp_path):
    check_network(made.network)
    save_network(tmp_path / "n.h5", made.network)
    again = load_network(tmp_path / "n.h5")
    assert {name: layer.name for name, layer in again.outputs.items()} == {
        name: layer.name for name, layer in made.network.outputs.items()
    }
    check(made.quantized)
    write_quantized(tmp_path / "q.h5", made.quantized)
    write_quantized(tmp_path / "r.h5", read_quantized(tmp_path / "q.h5"))
    assert (tmp_path / "q.h5").read_bytes() == (tmp_path / "r.h5").read_bytes()


def test_both_xmodels_give_the_engines_answers(made, tmp_path):
    for graph in (lower(made.quantized, get_target("kv260")), quantized_graph(made.quantized)):
        graph.save(tmp_path / "m.xmodel")
        graph = Graph.load(tmp_path / "m.xmodel")
        if len(made.expected) > 1:
            assert list(graph.attrs["output_names"]) == list(made.expected)
        with Emulator(graph, threads=1) as emulator:
            assert_equal(outputs(emulator, made.grids), made.expected)


def test_machine_code_gives_them_as_well(made):
    compiled = compile_native(made.quantized, get_target("kv260"), "allow", made.pixels)
    assert sum(compiled.report["verification"]["images"].values()) >= 4
    assert_equal(outputs(IsaRunner(compiled.graph), made.grids), made.expected)


def test_the_evaluation_graph_gives_them_but_for_rounding(made, tmp_path):
    paths = [tmp_path / name for name in ("q.h5", "q.pb", "q.json")]
    write_artifacts(made.quantized, made.report, *paths)
    record = read_record(paths[2], "quantization.schema.yaml")
    nodes = record["eval_graph"]
    if len(made.grids) > 1:
        assert nodes["inputs"] == list(made.grids)
        return  # `FrozenGraph` feeds one
    x = scale_pixels(made.pixels[nodes["input"]], SCALING)
    for name, node in nodes.get("outputs", dict.fromkeys(made.expected, nodes["output"])).items():
        found = FrozenGraph(paths[1], nodes["input"], node).run(x)
        np.testing.assert_allclose(found, made.expected[name].reshape(found.shape), rtol=2e-5, atol=2e-6)


def test_a_layer_of_the_cpu_between_the_dpus_is_said_and_refused_unless_allowed():
    network = between()
    quantized, _ = quantize(network, images(network, 4), {"fast_finetune": False}, SCALING)
    with pytest.raises(UserError, match="tanh runs on the CPU in float, so that the DPU waits for it"):
        compile_reference(quantized, get_target("kv260"))
    graph = lower(quantized, get_target("kv260"))
    assert [part.device for part in Emulator(graph).parts] == ["USER", "DPU", "CPU", "DPU", "CPU"]


def test_what_is_ready_for_the_dpu_does_not_wait_for_the_cpu():
    network = detector()
    quantized, _ = quantize(network, images(network, 4), {"fast_finetune": False}, SCALING)
    graph = lower(quantized, get_target("kv260"))
    assert [part.device for part in Emulator(graph).parts] == ["USER", "DPU", "CPU"]


def test_an_output_that_does_not_exist_is_no_network():
    network = two_outputs()
    with pytest.raises(ValueError, match="outputs of layers that do not exist: nowhere"):
        type(network)("n", network.layers, {"class": "nowhere"})
    with pytest.raises(UserError, match="one output is needed here, it has 2: 'class', 'mask'"):
        network.output  # noqa: B018


def test_pixels_of_several_inputs_are_quantized_by_name(made):
    with Emulator(lower(made.quantized, get_target("kv260")), threads=1) as emulator:
        given = emulator.quantize_input(made.pixels)
        for name, grid in made.grids.items():
            assert given[name].dtype == np.int8
            np.testing.assert_array_equal(given[name], grid)
        assert_equal(outputs(emulator, given), made.expected)
        end = emulator.outputs[0].name
        np.testing.assert_array_equal(emulator.values(given, [end])[end], outputs(emulator, given)[0])
        with pytest.raises(UserError, match="has no input 'extra'; its inputs are "):
            emulator.quantize_input({**made.pixels, "extra": made.pixels["image"]})
        if len(made.pixels) > 1:
            with pytest.raises(UserError, match=r"has 2 inputs \(image, other\); give them by name"):
                emulator.quantize_input(made.pixels["image"])
            with pytest.raises(UserError, match=r"do not fit the model's input 'other' \(12, 8, 8, 1\)"):
                emulator.quantize_input({**made.pixels, "other": made.pixels["image"]})


def test_inputs_are_given_by_name():
    network = two_inputs()
    with pytest.raises(UserError, match="given for image; the network's inputs are image, other"):
        quantize(network, {"image": images(network, 4)["image"]}, {}, SCALING)
    given = images(network, 4)
    with pytest.raises(UserError, match="as many for every input expected"):
        quantize(network, {"image": given["image"], "other": given["other"][:3]}, {}, SCALING)
