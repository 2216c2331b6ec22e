"""`make fuzz-networks`: what it draws, that it finds a defect and makes it small, and what it found once."""

from dataclasses import replace

import numpy as np
import pytest

from dpuflow.ops import OPERATORS
from tests.network_fuzz.__main__ import Record, write_failure
from tests.network_fuzz.recipes import SETTINGS, Recipe, build, random_recipe
from tests.network_fuzz.shrinking import shrink
from tests.network_fuzz.stages import DifferenceError, Outcome, try_recipe
from tests.network_fuzz.steps import MOST

SEED = 11
NOT_DRAWN = {"output", "to_grid"}
"""Marks while a network is rewritten, and what the quantizer itself puts in."""


@pytest.mark.parametrize("number", range(6))
def test_random_networks_give_the_same_everywhere(number):
    recipe = random_recipe(SEED, number)
    outcome = try_recipe(recipe, ("B512", "B4096"))
    assert outcome.failure is None, outcome.failure
    assert "tensorflow" in outcome.passed and any(stage.startswith("emulator") for stage in outcome.passed)


def layers(network, op):
    """The layers of an operator."""
    return [layer for layer in network.layers if layer.op == op]


def is_grouped(layer):
    """Whether a convolution has filters that see some of the channels alone."""
    return (
        0 < (np.abs(layer.weights).sum((1, 2)) == 0).sum() < layer.weights.shape[0] * layer.weights.shape[3]
    )


def before_the_dpu(network):
    """Layers of the CPU that a layer of the DPU reads."""
    quantized = [layer for layer in network.layers if layer.operator.quantized]
    read = {network[name].op for layer in quantized for name in layer.inputs}
    return read - {layer.op for layer in quantized}


FEATURES = {
    "several inputs": lambda recipe, network: len(network.inputs) > 1,
    "several outputs": lambda recipe, network: len(network.outputs) > 1,
    "an output that is read": lambda recipe, network: any(
        network.consumers(layer.name) for layer in network.outputs.values()
    ),
    "the CPU between two parts of the DPU": lambda recipe, network: before_the_dpu(network),
    "dilation": lambda recipe, network: any(
        max(layer.attrs["dilation"]) > 1 for layer in layers(network, "conv")
    ),
    "dilation by channel": lambda recipe, network: any(
        max(layer.attrs["dilation"]) > 1 for layer in layers(network, "depthwise_conv")
    ),
    "groups": lambda recipe, network: any(map(is_grouped, layers(network, "conv"))),
    "unlike paddings": lambda recipe, network: any(
        len(set(layer.attrs["pad"])) > 2 for layer in layers(network, "conv")
    ),
    "hard swish": lambda recipe, network: any(
        network[name].op == "hard_sigmoid" and set(network[name].inputs) & set(layer.inputs)
        for layer in layers(network, "multiply")
        for name in layer.inputs
    ),
    "a factor for each channel": lambda recipe, network: any(
        len({network[name].shape for name in layer.inputs}) > 1 for layer in layers(network, "multiply")
    ),
    "blocks of pixels to channels": lambda recipe, network: any(
        not layer.attrs["upscale"] and layer.attrs["scale"] > 1 for layer in layers(network, "pixel_shuffle")
    ),
    "any size": lambda recipe, network: {layer.attrs["grid"] for layer in layers(network, "resize_bilinear")},
    "PReLU": lambda recipe, network: any(step["kind"] == "prelu" for step in recipe.steps),
    "joined maps of unlike sizes": lambda recipe, network: any(
        step["kind"] == "unlike concat" for step in recipe.steps
    ),
    "maps in pieces": lambda recipe, network: (
        recipe.wide and max(np.prod(layer.shape) for layer in network.layers) > MOST
    ),
    "each setting of the quantizer": lambda recipe, network: recipe.setting == len(SETTINGS) - 1,
    "no layer on the CPU": lambda recipe, network: not recipe.on_cpu,
}
"""What networks have besides operators -> whether one has it."""


def test_every_operator_and_feature_is_drawn_and_a_recipe_makes_the_same_network_again():
    found, shown = set(), dict.fromkeys(FEATURES, 0)
    for number in range(400):
        recipe = random_recipe(SEED, number)
        network = build(recipe)
        found |= {layer.op for layer in network.layers}
        for name, has in FEATURES.items():
            shown[name] += bool(has(recipe, network))
        if number % 40 == 0:
            again = build(Recipe.read(recipe.text()))
            assert [(a.name, a.inputs, a.shape, a.attrs) for a in network.layers] == [
                (b.name, b.inputs, b.shape, b.attrs) for b in again.layers
            ]
    assert found == set(OPERATORS) - NOT_DRAWN
    assert {name: count for name, count in shown.items() if count < 4} == {}


def planted(recipe, outcome, stage, folder, sizes):
    """A defect of average pooling over at least two pixels that a ReLU reads."""
    stage[0] = "planted"
    layers = {layer.name: layer for layer in build(recipe).layers}
    for layer in layers.values():
        source = layers[layer.inputs[0]] if layer.inputs else None
        if layer.op == "relu" and source.op == "avg_pool" and max(source.attrs["kernel"]) > 1:
            raise DifferenceError(f"{layer.name!r} differs")


def test_a_failing_network_becomes_small():
    def fails(recipe):
        return try_recipe(recipe, compute=planted).failure is not None

    number = next(n for n in range(2000) if fails(random_recipe(SEED, n)))
    small = shrink(random_recipe(SEED, number), fails)
    assert (fails(small) and [step["kind"] for step in small.steps] == ["global", "activation"]) or [
        step["kind"] for step in small.steps
    ] == ["avg_pool", "activation"]
    assert small.shape[2] == 1 and small.shape[0] * small.shape[1] <= 4
    assert not small.ends and small.setting == 0


def test_a_failure_is_written_with_what_brings_it_back(tmp_path, monkeypatch, capsys):
    from tests.network_fuzz import __main__ as command

    monkeypatch.setattr(command, "try_recipe", lambda recipe: try_recipe(recipe, compute=planted))
    steps = [{"number": 1, "kind": "global", "from": [0]}]
    steps.append({"number": 2, "kind": "activation", "op": "relu", "from": [1]})
    recipe = Recipe(1, (2, 2, 3), steps)
    path = write_failure(tmp_path, "seed0-5", recipe, command.try_recipe(recipe), 60)
    assert Recipe.read(path.read_text()).shape == (1, 2, 1)
    assert "planted: DifferenceError" in path.with_suffix(".txt").read_text()
    assert command.main(["--replay", str(path)]) == 1
    said = capsys.readouterr().out
    assert "FAILED seed0-5 (planted" in said and "'relu2' differs" in said
    path.write_text(replace(recipe, steps=steps[:1]).text())
    assert command.main(["--replay", str(path)]) == 0


def test_an_interrupted_call_goes_on_where_it_was(tmp_path):
    record = Record(tmp_path, 3)
    numbers = record.numbers()
    assert [next(numbers) for _ in range(3)] == [0, 1, 2]
    record.add(1, Outcome(passed=["tensorflow"], refused={"machine code B512": "layer 'a' has 7 of 5"}))
    record.save()
    record = Record(tmp_path, 3)
    numbers = record.numbers()
    assert [next(numbers) for _ in range(3)] == [0, 2, 3]
    assert record.entries["networks"] == 1 and record.entries["passed"] == {"tensorflow": 1}
    assert next(numbers) == 4


def window(kernel=(1, 1), **more):
    """Parameters of a step with a window."""
    plain = {"stride": [1, 1], "pad": [0] * 4, "dilation": [1, 1], "bias": False, "spread": 0.0, "size": 1.0}
    return {"kernel": list(kernel), **plain, "units": 1, **more}


FOUND = {
    "a constant joined to what differs from image to image": Recipe(
        7, (3, 3, 2), [{"number": 1, "kind": "conv", "from": [0], **window(units=4)},
                       {"number": 2, "kind": "float_concat", "from": [1], "which": 1}],
    ),
    "a matrix for all rows of a map": Recipe(
        7, (3, 5, 4), [{"number": 1, "kind": "conv", "from": [0], **window(units=4)},
                       {"number": 2, "kind": "float_matmul", "from": [1], "units": 3}],
    ),
    "a window that sees a part of the map, once": Recipe(
        7, (5, 7, 2), [{"number": 1, "kind": "avg_pool", "from": [0], **window([3, 4], stride=[4, 3])}],
    ),
    "a depthwise convolution of unlike strides": Recipe(
        7, (5, 7, 3), [{"number": 1, "kind": "depthwise", "from": [0],
                        **window([3, 2], stride=[1, 2], pad=[1, 0, 1, 0])}],
    ),
    "columns behind the only windows": Recipe(
        7, (4, 5, 1), [{"number": 1, "kind": "conv", "from": [0], **window([3, 2], stride=[4, 1], units=5)}],
    ),
    "a vector times a matrix": Recipe(
        7, (2, 2, 1), [{"number": 1, "kind": "dense", "from": [0], **window(units=6)},
                       {"number": 2, "kind": "float_matmul", "from": [1], "units": 3}],
    ),
    "a size whose scale is no float32": Recipe(
        7, (3, 1, 1), [{"number": 1, "kind": "bilinear", "from": [0], "factor": [1, 1], "size": [1, 10],
                        "grid": "asymmetric"}],
    ),
    "a gate of more values than an instruction moves": Recipe(
        7, (26, 53, 3), [{"number": 1, "kind": "flatten", "from": [0]},
                         {"number": 2, "kind": "activation", "from": [1], "op": "hard_sigmoid"}],
    ),
    "a softmax between two parts of the DPU": Recipe(
        7, (1, 1, 1), [{"number": 1, "kind": "CPU between", "from": [0], "op": "softmax"},
                       {"number": 2, "kind": "dense", "from": [1], **window()}],
    ),
    "a gate on raw pixels, placed by the logits": Recipe(
        7, (1, 1, 2), [{"number": 1, "kind": "activation", "from": [0], "op": "sigmoid"},
                       {"number": 2, "kind": "conv", "from": [1], **window()}],
        setting=5, scaling=3,
    ),
}  # fmt: skip
"""What the command found, by what it was about."""


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_stays_mended(name):
    outcome = try_recipe(FOUND[name], ("B4096",))
    assert outcome.failure is None, outcome.failure
    assert {"tensorflow", "emulator, compiled, NumPy"} <= set(outcome.passed)


def test_sums_too_coarse_for_a_gate_are_refused_by_the_quantizer():
    coarse = {"number": 1, "kind": "conv", "from": [0], **window(size=1e6)}
    gate = {"number": 2, "kind": "activation", "from": [1], "op": "hard_sigmoid"}
    outcome = try_recipe(Recipe(7, (2, 2, 3), [coarse, gate]), ())
    assert outcome.failure is None
    assert "the hard sigmoid 'hard_sigmoid2' reads steps of at most 1" in outcome.refused["quantize"]


def test_what_shares_a_scale_that_nothing_fits_is_refused_by_the_quantizer():
    """A product joined to its own factor, where the other factor is large: lowering one lowers the other."""
    steps = [
        {"number": 1, "kind": "conv", "from": [0], **window(size=3e3, units=2)},
        {"number": 2, "kind": "multiply", "from": [1], "which": 0, "swapped": False},
        {"number": 3, "kind": "concat", "from": [2, 0], "others": [0, 0], "swapped": False},
    ]
    outcome = try_recipe(Recipe(7, (1, 1, 2), steps), ())
    assert outcome.failure is None
    assert "no scale fits it and the layers that share its scale" in outcome.refused["quantize"]
