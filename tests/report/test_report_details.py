"""Views of one run: errors, confusion, quantization, hardware, wording, figures."""

import base64
import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_runs import LETTERS, make_run
from PIL import Image

from dpuflow.base.errors import UserError
from dpuflow.base.files import read_json, write_json
from dpuflow.base.numerics import sqnr_db
from dpuflow.network import Layer, Network, QuantizedNetwork
from dpuflow.network.quantized_file import write_quantized
from dpuflow.quantize.diagnosis import diagnose
from dpuflow.records import write_record
from dpuflow.report import details, diagnosis, figures, hardware, wording
from dpuflow.report.images import data_uri
from dpuflow.report.inputs import load_run
from dpuflow.report.svg import element, log_ticks, ticks


def text_of(svg):
    return [node.text for node in ElementTree.fromstring(str(svg)).iter() if node.tag == "text"]


def test_misclassified_images_are_the_right_ones(tmp_path):
    run = load_run(make_run(tmp_path, full=False))
    found = details.misclassified(run)
    assert (found["total"], found["shown"]) == (12, 12)
    assert [(g["title"], g["total"]) for g in found["groups"]] == [
        (details.ERROR_GROUPS["lost"], 3),
        (details.ERROR_GROUPS["every"], 9),
    ]
    card = found["groups"][0]["images"][0]
    assert card["truth"] == LETTERS[run.images.labels[card["index"]]]
    assert [a["right"] for a in card["answers"]] == [True, True, False, False]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(card["src"].partition(",")[2]))))
    assert np.array_equal(pixels, run.images.dataset.subset("test")[0][card["index"]][..., 0])


def test_too_many_errors_show_lost_and_worst(tmp_path):
    run = load_run(make_run(tmp_path, errors=(95, 95, 100, 130), full=False))
    found = details.misclassified(run, limit=20)
    assert (found["total"], found["shown"]) == (130, 20)
    lost, every = found["groups"]
    assert (len(lost["images"]), lost["total"]) == (10, 35)
    assert (len(every["images"]), every["total"]) == (10, 95)


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=4), min_size=1, max_size=1))
def test_every_pattern_of_errors_has_a_group(patterns):
    wrong = np.array(patterns[0])
    kind = details._kind(wrong)
    assert kind in details.ERROR_GROUPS
    assert (kind == "every") == bool(wrong.all())


def test_confusion_names_repeats_and_mistakes(tmp_path):
    run = load_run(make_run(tmp_path, full=False))
    views = details.confusions(run, "m")
    assert [view["errors"] for view in views] == [9, 9, 12, 12]
    assert [view["same_as"] for view in views] == [None, "Keras", None, "Quantized"]
    assert sum(m["count"] for m in views[0]["mistakes"]) <= 9


def test_confusion_figure_counts_and_omits_unseen_classes():
    matrix = np.zeros((4, 4), int)
    matrix[0, 0], matrix[0, 2], matrix[2, 2] = 5, 1, 7
    svg, copy = figures.confusion(matrix, ["A", "B", "C", "D"], "test", "anchor")
    assert text_of(svg) == ["predicted", "A", "A", "C", "C", "5", "1", "7"]
    titles = [node.text for node in ElementTree.fromstring(str(svg)).iter("title")]
    assert 'id="anchor"' in svg and '<use href="#anchor"/>' in copy
    assert titles == ["A: 5 of 6 right", "1 of 6 A taken for C", "C: 7 of 7 right"]


def test_curves_leave_gaps_and_survive_one_epoch():
    svg = figures.curves("Loss", [("training", [0.5, None, 0.3], "first")], best_epoch=3)
    assert len(list(ElementTree.fromstring(str(svg)).iter("circle"))) == 2
    assert "NaN" not in svg and "nan" not in svg
    figures.curves("Accuracy", [("training", [1.0], "first")], 1, percent=True)


def test_training_marks_the_kept_epoch(tmp_path):
    view = details.training(load_run(make_run(tmp_path)))
    assert (view["best"], view["epochs"], len(view["charts"])) == (11, 12, 2)


@pytest.mark.parametrize(
    ("low", "high", "fix_point", "pieces"),
    [
        # fix point 5 holds -4 .. 3.97; the track ends at 5
        (-4.0, 4.0, 5, [("span", 10.0, 80.0)]),
        (0.0, 2.0, 5, [("span", 50.0, 20.0)]),
        (-1.0, 5.0, 5, [("span", 40.0, 50.0), ("over", 90.0, 10.0)]),
        (-100.0, 100.0, 5, [("over", 0.0, 10.0), ("span", 10.0, 80.0), ("over", 90.0, 10.0)]),
        (0.0, 0.0, -3, [("span", 50.0, 0.0)]),
    ],
)
def test_range_bar_geometry(low, high, fix_point, pieces):
    bar = diagnosis.range_bar("conv", low, high, fix_point)
    assert bar["pieces"] == pieces
    assert bar["holds"] == (-128 * 2.0**-fix_point, 127 * 2.0**-fix_point)


def test_range_bar_refuses_a_reversed_range():
    assert diagnosis.range_bar("conv", None, 1.0, 3) is None
    with pytest.raises(UserError, match="'conv' has the minimum 2 above the maximum 1"):
        diagnosis.range_bar("conv", 2, 1, 3)


def toy_network():
    weights = np.array([[0.5, -0.25], [0.3, 0.1]], np.float32)
    layers = [
        Layer("input", "input", [], (2,)),
        Layer("dense", "dense", ["input"], (2,), {"activation": "NONE"}, weights, np.zeros(2, np.float32)),
    ]
    values = np.array([[64, -32], [38, 13]], np.int8)
    return QuantizedNetwork(
        Network("toy", layers),
        {"input": 6, "dense": 5},
        {"dense": (values, 7)},
        {"dense": (np.zeros(2, np.int8), 6)},
        {"subtract": 0, "divide": 255},
    )


def test_layers_come_from_the_quantized_model_too(tmp_path):
    write_quantized(tmp_path / "q.h5", toy_network())
    entry = make_run(tmp_path)
    entry["files"]["quantized_model"] = str(tmp_path / "q.h5")
    del entry["files"]["quantization"]
    view = diagnosis.diagnosis(load_run(entry), toy_network())
    row = next(row for row in view["layers"] if row["name"] == "dense")
    assert (row["input_fix_point"], row["weights_fix_point"], row["fix_point"], row["shift_cut"]) == (
        6,
        7,
        5,
        8,
    )
    assert (row["bias_fix_point"], row["shift_bias"]) == (6, 7)
    assert (row["weights_min"], row["weights_max"]) == (-0.25, 0.5)
    exact = np.array([0.5, -0.25, 0.3, 0.1], np.float32).astype(float)
    noise = exact - np.array([64, -32, 38, 13]) / 128
    assert row["weights_sqnr_db"] == pytest.approx(
        10 * np.log10((exact**2).sum() / (noise**2).sum()), rel=1e-5
    )
    assert [(words, [bar["name"] for bar in bars]) for words, bars in view["bars"]] == [
        ("Weights", ["dense"])
    ]


def test_the_diagnosis_of_the_quantizer_is_understood(tmp_path):
    """The real `quantize.diagnosis` on a small network, through quantization.json, to the views."""
    quantized = toy_network()
    x = np.random.default_rng(0).random((50, 2), np.float32)
    quantized.network.layers[0].shape = (2,)
    found = diagnose(quantized, x, np.zeros(50, int))
    entry = make_run(tmp_path)
    path = entry["files"]["quantization"]
    found = {"source": "validation", **found}
    write_record(path, "quantization.schema.yaml", read_json(path) | {"diagnosis": found})
    view = diagnosis.diagnosis(load_run(entry))
    row = next(row for row in view["layers"] if row["name"] == "dense")
    told = next(row for row in found["layers"] if row["layer"] == "dense")
    assert row["divergence_alone"] == told["alone"]["divergence"] > 0
    assert row["accuracy_change_alone"] == pytest.approx(told["alone"]["accuracy_change"] / 100)
    assert (row["fix_point"], row["weights_fix_point"], row["shift_cut"]) == (5, 7, 8)
    assert view["images"] == 50 and view["quantiles"]
    assert [words for words, _ in view["bars"]] == ["Activations", "Weights", "Biases"]
    assert all(bar["pieces"][-1][0] == "core" for _, bars in view["bars"] for bar in bars)


def test_recorded_layers_overrule_and_complete():
    merged = diagnosis.merge_layers([{"layer": "dense", "sqnr_db": 31.0}], toy_network())
    assert merged[1]["sqnr_db"] == 31.0 and merged[1]["op"] == "dense"


def test_sqnr_of_exact_and_empty_signals_is_open():
    assert sqnr_db([1.0, 2.0], [1.0, 2.0]) is None
    assert sqnr_db([0.0], [1.0]) is None
    assert sqnr_db([1.0, 1.0], [0.9, 1.1]) == pytest.approx(20.0)


def test_worst_layers_come_first(tmp_path):
    view = diagnosis.diagnosis(load_run(make_run(tmp_path)))
    costs = [row.get("accuracy_change_alone") for row in view["layers"]]
    known = [cost for cost in costs if cost is not None]
    assert known == sorted(known) and costs[: len(known)] == known
    assert "SQNR" in diagnosis.COLUMNS["sqnr_db"] and "sqnr_db" in view["columns"]


def test_adjustments_and_folding_are_listed(tmp_path):
    entry = make_run(tmp_path)
    record = read_json(entry["files"]["quantization"])
    record["adjustments"] = [{"tensor": "dense/bias", "from": 11, "to": 10, "why": "shift_bias was -1"}]
    record["folding"] = [{"layer": "bn", "into": "conv", "how": "folded"}]
    write_json(entry["files"]["quantization"], record)
    view = diagnosis.diagnosis(load_run(entry))
    expected = {"tensor": "dense/bias", "before": 11, "after": 10, "why": "shift_bias was -1"}
    assert view["adjustments"] == [expected]
    assert view["folding"] == record["folding"]


def test_votes_show_only_disagreement():
    rows = diagnosis.vote_rows(
        {"a": {"5": 10}, "b": {"4": 7, "10": 3}, "c": {"3": 10}}, {"a": 5, "b": 4, "c": 2}
    )
    assert [row["name"] for row in rows] == ["b", "c"]
    assert [(p["fix_point"], p["share"], p["chosen"]) for p in rows[0]["parts"]] == [
        (4, 0.7, True),
        (10, 0.3, False),
    ]


def test_hardware_views(tmp_path):
    run = load_run(make_run(tmp_path))
    view = hardware.hardware(run)
    assert view["findings"][0]["message"] == (
        "channels is 5000, allowed 1 to 4096; too many channels; remedy: use fewer units"
    )
    assert view["estimate"]["frames_per_second board"] == 8100.0
    assert "target" not in view["estimate"]
    assert view["layers"]["columns"][:4] == ["name", "op", "engine", "workload"]
    assert view["layers"]["numeric"][:3] == ["workload", "workload_on_arch", "cycles"]
    assert hardware.costs(run)["latency_us"] == 432.9


@pytest.mark.parametrize(
    ("shape", "kind", "size"), [((200, 100), "jpeg", (64, 128)), ((48, 40), "png", (40, 48))]
)
def test_small_images_are_shown_exactly_and_large_ones_as_small_photographs(shape, kind, size):
    image = np.zeros((*shape, 3), np.uint8)
    image[..., 1] = 200
    head, _, content = data_uri(image).partition(",")
    picture = Image.open(io.BytesIO(base64.b64decode(content)))
    assert head == f"data:image/{kind};base64" and picture.size == size
    np.testing.assert_allclose(picture.getpixel((5, 5)), (0, 200, 0), atol=0 if kind == "png" else 3)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1.0, "100.00 %"), (0.99999, "99.99 %"), (0.9972, "99.72 %"), (0.0, "0.00 %"), (None, "–")],
)
def test_percent_never_rounds_up_to_perfection(value, shown):
    assert wording.percent(value).replace("\xa0", " ") == shown


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        (wording.points(-0.0014), "−0.14 pp"),
        (wording.points(0.00001), "±0.00 pp"),
        (wording.size(999), "999 B"),
        (wording.size(4_730_112), "4.73 MB"),
        (wording.size(999_900), "1 MB"),
        (wording.operations(12_659_072), "12.7 MOP"),
        (wording.duration(432.9), "433 µs"),
        (wording.duration(2513.0), "2.51 ms"),
        (wording.real(10857.0), "10,857"),
        (wording.real(4.1e-9), "4.1e−09"),
        (wording.real(-3), "−3"),
        (wording.real(True), "yes"),
        (wording.fact_value("clock_mhz", 300.0), "300 MHz"),
        (wording.p_value(0.00001), "< 0.001"),
    ],
)
def test_numbers_as_written(call, shown):
    assert call.replace("\xa0", " ") == shown


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_round_and_inside(low, span):
    values = ticks(low, low + span)
    assert 1 <= len(values) <= 12
    slack = 1e-6 * (abs(low) + span)
    assert all(low - slack <= value <= low + span + slack for value in values)


def test_log_ticks():
    assert log_ticks(90, 5000) == [100, 300, 1000, 3000]


def test_svg_text_is_escaped():
    assert str(element("text", "a<b", x=1.0, class_="t")) == '<text x="1" class="t">a&lt;b</text>'
