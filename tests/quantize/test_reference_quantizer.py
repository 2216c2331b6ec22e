"""The quantizer as a whole: settings, artifacts, report, calibration rules."""

import numpy as np
import pytest
import yaml

from dpuflow.base.errors import UserError
from dpuflow.base.files import read_json
from dpuflow.base.pixels import scale_pixels
from dpuflow.device.dpuczdx8g import SHIFT_BIAS_RANGE, SHIFT_CUT_RANGE
from dpuflow.network.quantized_file import read_quantized
from dpuflow.quantize.engine import run_float
from dpuflow.quantize.reference import predict, quantize, write_artifacts
from dpuflow.quantize.settings import CHOICES, DEFAULTS, complete
from dpuflow.tfgraph.graph_reader import read_network
from tests.quantize.frozen_networks import GraphMaker, images, plain_network, residual_network

SCALING = {"subtract": 128, "divide": 128}
METHODS = {
    "plain": {"equalization": False, "fast_finetune": False, "position_search": {"criterion": None}},
    "non_overflow": {"method": "non_overflow", "equalization": False, "position_search": {"criterion": None}},
    "default": {},
    "output_error": {"position_search": {"criterion": "output_error"}, "fast_finetune": False},
    "logit_error": {"position_search": {"criterion": "logit_error", "images": 32}},
    "bias_correction": {"bias_correction": True, "fast_finetune": False},
    "compat": {"compat": "vai_q"},
}


def agreement(path, quantized, pixels):
    network = read_network(path)
    float_output = run_float(network, scale_pixels(pixels, quantized.input_scaling))[network.output.name]
    return float((predict(quantized, pixels).argmax(1) == float_output.argmax(1)).mean())


@pytest.mark.parametrize("make", [plain_network, residual_network])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_runnable_close_network(tmp_path, make, method):
    path = make(tmp_path / "g.pb")
    quantized, report = quantize(read_network(path), images(), METHODS[method], SCALING)
    assert agreement(path, quantized, images(seed=4)) > 0.9
    assert report["steps"][0]["step"] == "positions"
    if method == "compat":
        return
    assert quantized.fix_points["images"] == 7  # (pixel - 128) / 128 is exact there
    for name in quantized.weights:
        assert SHIFT_CUT_RANGE[0] <= quantized.shift_cut(name) <= SHIFT_CUT_RANGE[1]
        assert SHIFT_BIAS_RANGE[0] <= quantized.shift_bias(name) <= SHIFT_BIAS_RANGE[1]
        if quantized.network[name].attrs["activation"] == "RELU6":
            assert quantized.fix_points[name] >= 4
    for layer in quantized.network.layers:
        if layer.op in ("max_pool", "concat", "flatten"):
            fixes = {quantized.fix_points[n] for n in (layer.name, *layer.inputs)}
            assert len(fixes) == 1


@pytest.mark.parametrize(("method", "position"), [("non_overflow", 6), ("min_diffs", 7)])
def test_the_input_takes_its_position_by_the_method_too(tmp_path, method, position):
    """(pixel - 127) / 128 reaches 1, which saturates at 7; at 6 all odd differences are rounded."""
    settings = {"method": method, "diagnosis": False, "fast_finetune": False, "equalization": False}
    settings["position_search"] = {"criterion": None}
    pixels = images()
    pixels[:, 0, 0] = 255
    network = read_network(plain_network(tmp_path / "g.pb"))
    quantized, _ = quantize(network, pixels, settings, {"subtract": 127, "divide": 128})
    assert quantized.fix_points["images"] == position


def test_kept_steps_never_raise_the_divergence(tmp_path):
    settings = {"position_search": {"criterion": "logit_error", "images": 32}, "bias_correction": True}
    _, report = quantize(read_network(plain_network(tmp_path / "g.pb")), images(), settings, SCALING)
    assert [step["step"] for step in report["steps"]] == [
        "positions",
        "equalization",
        "position_search",
        "logits_position",
        "bias_correction",
        "fast_finetune",
    ]
    divergence = {step["step"]: step["divergence"] for step in report["steps"]}
    current = divergence["positions"]
    for step in report["steps"][1:]:
        if step["step"] == "logits_position":  # by rule it may, where it tells more images apart
            current = step["divergence"] if step["kept"] else current
        else:
            assert step["kept"] == (step["divergence"] <= current)
            current = min(current, step["divergence"])
    assert current < divergence["positions"]


def few_classes(path, classes, seed):
    """A convolution, a pool, a dense layer without bias: so few classes that their logits lie apart."""
    g = GraphMaker(seed=seed)
    x = g.pool(g.op("Relu", g.batch_norm(g.conv(g.input, 1, 8), 8)))
    weights = g.constant(288, classes, scale=0.08)
    return g.write(path, g.op("MatMul", g.flatten(x, 288), weights))


@pytest.mark.parametrize(("classes", "seed"), [(2, 1), (2, 3), (3, 2)])
def test_logits_that_lose_by_their_new_position_keep_the_old_one(tmp_path, classes, seed):
    path = few_classes(tmp_path / "g.pb", classes, seed)
    quantized, report = quantize(read_network(path), images(), {"diagnosis": False}, SCALING)
    steps = {step["step"]: step for step in report["steps"]}
    placed, before = steps["logits_position"], steps["position_search"]
    assert placed["moves"] and placed["divergence"] > 2 * before["divergence"]
    assert placed["decided"] == before["agreement"] == 1  # there was nothing to tell apart
    assert not placed["kept"]
    assert quantized.fix_points[quantized.network.output.inputs[0]] == placed["moves"][0]["from"]
    # fine-tuning is judged by what it does itself
    tuned = steps["fast_finetune"]
    assert tuned["kept"] and tuned["divergence"] < before["divergence"]


def test_logits_are_placed_where_that_tells_more_images_apart(tmp_path):
    """Though sure winners saturate then, which raises the divergence."""
    g = GraphMaker(seed=2)
    x = g.pool(g.op("Relu", g.batch_norm(g.conv(g.input, 1, 8), 8)), size=4)
    path = g.write(tmp_path / "g.pb", g.op("MatMul", g.flatten(x, 72), g.constant(72, 5, scale=0.02)))
    _, report = quantize(
        read_network(path), images(400), {"diagnosis": False, "fast_finetune": False}, SCALING
    )
    before, placed = report["steps"][-2:]
    assert placed["divergence"] > before["divergence"]
    assert placed["decided"] > before["agreement"]
    assert placed["kept"]


def test_artifacts_repeat_byte_for_byte_and_read_back(tmp_path):
    path = plain_network(tmp_path / "g.pb")
    contents = []
    for run in ("a", "b"):
        quantized, report = quantize(read_network(path, name="net"), images(), {}, SCALING)
        files = [tmp_path / run / name for name in ("quantized_model.h5", "eval.pb", "quantization.json")]
        write_artifacts(quantized, report, *files)
        contents.append([file.read_bytes() for file in files])
    assert contents[0] == contents[1]
    back = read_quantized(tmp_path / "a" / "quantized_model.h5")
    np.testing.assert_array_equal(predict(back, images(seed=2)), predict(quantized, images(seed=2)))
    report = read_json(tmp_path / "a" / "quantization.json")
    assert report["eval_graph"]["input"] == "images"
    assert report["eval_graph"]["output"] == "probabilities"
    assert report["settings"]["method"] == "min_diffs"


def test_calibration_is_recorded(tmp_path):
    pixels, labels = images(60), np.arange(60) % 5
    _, report = quantize(
        read_network(plain_network(tmp_path / "g.pb")),
        pixels,
        {"calibration": {"images": 50, "batch": 16}, **METHODS["plain"]},
        SCALING,
        calibration_labels=labels,
        calibration_indices=np.arange(100, 160),
    )
    record = report["calibration"]
    assert record["images"] == 50
    assert record["per_class"] == {str(c): 10 for c in range(5)}
    assert len(record["indices_sha256"]) == 64
    assert sum(report["votes"]["images"].values()) == 4  # 16 + 16 + 16 + 2 images


@pytest.mark.fault("data", "test image among the quantizer's images", "refused")
def test_a_test_image_among_the_calibration_images_is_refused(tmp_path):
    pixels = images()
    test = np.concatenate([images(seed=8), pixels[41:42]])
    path = plain_network(tmp_path / "g.pb")
    with pytest.raises(UserError, match=r"1 of 96 images are also test images \(positions 41\)"):
        quantize(read_network(path), pixels, {}, SCALING, test_images=test)
    # it is not refused when it lies behind the images that are used
    quantize(
        read_network(path),
        pixels,
        {"calibration": {"images": 40}, **METHODS["plain"]},
        SCALING,
        test_images=test,
    )


@pytest.mark.fault("data", "calibration images of another shape or type", "refused")
@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((4, 12, 12, 1), np.float32),
        np.zeros((4, 10, 12, 1), np.uint8),
        np.zeros((0, 12, 12, 1), np.uint8),
    ],
)
def test_images_of_another_form_are_refused(tmp_path, bad):
    with pytest.raises(UserError, match=r"expected uint8 of shape \(N, 12, 12, 1\)"):
        quantize(read_network(plain_network(tmp_path / "g.pb")), bad, {}, SCALING)


def test_diagnosis_lists_the_worst_layer_first(tmp_path):
    path = plain_network(tmp_path / "g.pb")
    pixels = images(80, seed=3)
    network = read_network(path)
    labels = run_float(network, scale_pixels(pixels, SCALING))[network.output.name].argmax(1)
    quantized, report = quantize(read_network(path), images(), {}, SCALING, validation=(pixels, labels))
    diagnosis = report["diagnosis"]
    assert (diagnosis["source"], diagnosis["images"], diagnosis["float_accuracy"]) == ("validation", 80, 1.0)
    rows = diagnosis["layers"]
    alone = [row["alone"]["divergence"] for row in rows]
    assert alone == sorted(alone, reverse=True)
    assert {row["layer"] for row in rows} == {layer.name for layer in quantized.network.layers} - {
        layer.name for layer in quantized.network.layers if layer.op in ("flatten", "softmax")
    }
    for row in rows:
        assert row["alone"]["accuracy_change"] == pytest.approx(
            100 * (row["alone"]["agreement"] - 1), abs=1e-3
        )
        assert 0 <= row["saturated"] <= 1
        if row["op"] != "input":
            assert row["sqnr_db"] > 15
    ranges = {(row["tensor"], row["kind"]): row for row in diagnosis["ranges"]}
    first = next(iter(quantized.weights))
    weights = ranges[first, "weights"]
    assert weights["int8_high"] == 127 * 2.0 ** -quantized.weights[first][1]
    assert weights["min"] <= weights["p1"] <= weights["p50"] <= weights["p99"] <= weights["max"]


def test_a_spoilt_layer_is_named_first(tmp_path):
    from dpuflow.quantize.diagnosis import diagnose

    quantized, _ = quantize(
        read_network(plain_network(tmp_path / "g.pb")), images(), METHODS["plain"], SCALING
    )
    victim = list(quantized.weights)[1]
    values, fix = quantized.weights[victim]
    quantized.weights[victim] = ((values // 32) * 32, fix)
    worst = diagnose(quantized, scale_pixels(images(), SCALING))["layers"][0]
    assert worst["layer"] == victim
    assert worst["weights_sqnr_db"] < 15


@pytest.mark.fault("configuration", "quantizer setting: {id}", "refused")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metod": "min_diffs"}, r"metod: unknown; did you mean method\?"),
        ({"method": "min_kl"}, "method: 'min_kl'; expected one of non_overflow, min_diffs"),
        ({"calibration": {"batch": 0}}, r"calibration\.batch: 0; expected a whole number"),
        ({"calibration": 5}, "calibration: expected keys and values"),
        ({"fast_finetune": {"ridge": -1}}, r"fast_finetune\.ridge: -1"),
        ({"diagnosis": 1}, "diagnosis: 1; expected one of false, true"),
        ({"compat": "vai_q", "fast_finetune": True}, "fast_finetune: the vendor's tool has no such step"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        complete(settings)


def test_switches_take_true_and_false():
    assert complete({"fast_finetune": True})["fast_finetune"] == DEFAULTS["fast_finetune"]
    assert complete({"fast_finetune": False})["fast_finetune"] is False
    assert complete({"compat": "vai_q"})["equalization"] is False
    assert complete({"compat": "vai_q", "equalization": True})["equalization"] == DEFAULTS["equalization"]


def test_schema_and_code_know_the_same_settings(repo):
    schema = yaml.safe_load((repo / "config/schemas/quantizer_reference.schema.yaml").read_text())

    def compare(defaults, properties, path=""):
        assert set(properties) == set(defaults), path
        for key, value in defaults.items():
            entry = properties[key]
            assert entry["description"]
            if isinstance(value, dict):
                options = entry["anyOf"][1] if "anyOf" in entry else entry
                compare(value, options["properties"], f"{path}{key}.")
            else:
                assert entry["default"] == value, path + key
                if "enum" in entry:
                    assert tuple(entry["enum"]) == CHOICES[path + key]

    properties = dict(schema["properties"])
    del properties["tool"]
    compare(DEFAULTS, properties)
