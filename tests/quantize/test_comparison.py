"""Many settings on one loaded graph give what each gives alone, in the very integers of the board."""

import csv
import io

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.device.targets import load_targets
from dpuflow.dpuczdx8g.compile_report import compile_reference
from dpuflow.emulator import Emulator
from dpuflow.quantize import memo as memo_module
from dpuflow.quantize.memo import Memo
from dpuflow.quantize.reference import predict, quantize
from dpuflow.quantizer_search.comparison import Comparison
from dpuflow.quantizer_search.grid import DEFAULT_GRID, as_entry, expand, varied
from dpuflow.report.quantizer_search import search_csv, write_search
from dpuflow.tfgraph.graph_reader import read_network
from tests.quantize.frozen_networks import images, plain_network, residual_network

SCALING = {"subtract": 128, "divide": 128}
NODES = {"input": {"name": "images"}, "output": {"name": "probabilities/Softmax"}}
GRID = [
    {"compat": "vai_q", "equalization": [False, True]},
    {
        "calibration": {"images": [None, 40]},
        "equalization": [False, True],
        "position_search": {"criterion": [None, "output_error"]},
        "fast_finetune": [False, {"rows": 500}],
    },
    {"position_search": {"criterion": "logit_error", "images": 16}, "bias_correction": True},
    {"batch_norm_after_activation": "depthwise", "fast_finetune": False, "bias_correction": True},
]


@pytest.fixture(scope="module", params=["before", "after", "residual"])
def compared(request, tmp_path_factory):
    """(path of a graph, validation labels, its comparison, the row of each setting)."""
    path = tmp_path_factory.mktemp("graph") / "g.pb"
    if request.param == "residual":
        residual_network(path)
    else:
        plain_network(path, after=request.param == "after")
    labels = np.arange(150) % 5
    comparison = Comparison(read_network(path), images(), (images(150, seed=4), labels), SCALING, threads=2)
    return path, labels, comparison, [comparison.measure(setting) for setting in expand(GRID)]


def test_each_setting_gives_the_network_that_it_gives_alone(compared):
    path, labels, comparison, rows = compared
    assert len(rows) == 2 + 16 + 2
    for row in rows:
        settings = {**row["setting"], "diagnosis": False}
        alone, _ = quantize(read_network(path), images(), settings, SCALING)
        shared = comparison.quantize(row["setting"]).quantized
        assert shared.fix_points == alone.fix_points
        for table, expected in ((shared.weights, alone.weights), (shared.biases, alone.biases)):
            assert table.keys() == expected.keys()
            for name, (values, fix_point) in expected.items():
                assert table[name][1] == fix_point and np.array_equal(table[name][0], values)
        if "error" not in row:
            answers = predict(alone, comparison.images).argmax(axis=1)
            assert np.array_equal(row["predictions"], answers)
            assert row["correct"] == (answers == labels).sum()


def test_the_integers_are_those_of_the_emulator_and_of_the_evaluation(compared):
    _, _, comparison, _ = compared
    quantized = comparison.quantize({}).quantized
    logits, values = comparison.logits(quantized)
    assert values.dtype == np.int8
    assert np.array_equal(values, predict(quantized, comparison.images))
    graph = compile_reference(quantized, load_targets()["kv260"]).graph
    with Emulator(graph) as emulator:
        probabilities = emulator.run(emulator.quantize_input(comparison.images))
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(probabilities, e / e.sum(axis=1, keepdims=True), atol=1e-6)


def test_the_ranking_puts_the_nearest_to_float_first_and_networks_without_a_board_last(compared):
    _, labels, comparison, rows = compared
    broken = {"setting": {"method": "non_overflow"}, "seconds": 1.0, "error": "no such shift"}
    ranked = comparison.ranked([broken, *rows])
    assert [row["rank"] for row in ranked] == list(range(1, len(rows) + 2))
    measured = [row for row in ranked if "error" not in row]
    assert ranked[-1]["setting"] == broken["setting"]
    keys = [(row["divergence"], -row["agreement"], -row["correct"]) for row in measured]
    assert keys == sorted(keys)
    assert measured[0]["p_value"] == 1.0 and all(0 < row["p_value"] <= 1 for row in measured)
    assert measured[0]["divergence"] == min(row["divergence"] for row in measured)
    assert all(row["correct"] <= len(labels) for row in measured)


def test_the_table_and_the_page_say_what_was_measured(compared, tmp_path):
    _, labels, comparison, rows = compared
    ranked = comparison.ranked(rows)
    table = list(csv.DictReader(io.StringIO(search_csv(ranked))))
    assert [int(row["rank"]) for row in table] == list(range(1, len(rows) + 1))
    assert table[0]["correct"] == str(ranked[0]["correct"])
    assert {row["fast_finetune"] for row in table} == {"off", "on", "on, rows 500"}
    assert "batch_norm_after_activation" in table[0] and "position_search.sweeps" not in table[0]
    files = tmp_path / "s.csv", tmp_path / "s.html"
    numbers = {"images": len(labels), "float_correct": comparison.float_correct}
    write_search(ranked, *files, dataset="toy", model="net", **numbers)
    page = files[1].read_text()
    assert as_entry(ranked[0]["setting"]).splitlines()[2] in page
    assert "Test images were not looked at" in page and page.count('<tr><th scope="row"') == len(rows)


def test_a_key_names_the_network_that_it_stands_for(compared):
    """Settings with one key have one network, also where all is made anew: a key holds no address."""
    path, labels, comparison, rows = compared
    known = {}
    for row in (*rows, *rows):
        made = comparison.quantize(row["setting"]).made
        assert known.setdefault(made.key, made.network) is made.network
    again = Comparison(read_network(path), images(), (comparison.images, labels), SCALING)
    for row in rows[::7]:
        made = again.quantize(row["setting"]).made
        assert known[made.key].fix_points == made.network.fix_points
        for name, (values, _) in made.network.weights.items():
            assert np.array_equal(known[made.key].weights[name][0], values)


def test_shared_steps_are_done_once_and_count_in_each(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(memo_module.time, "perf_counter", lambda: next(clock))
    memo, calls = Memo(), []

    def inner():
        calls.append("inner")
        return 5

    def outer():
        calls.append("outer")
        return memo("inner", inner) + 1

    seconds = []
    for key in ("a", "b", "a"):  # a second computation that needs the same inner result
        begun = memo.alone()
        assert memo(key, outer) == 6
        seconds.append(memo.alone() - begun)
    assert calls == ["outer", "inner", "outer"]
    # the clock ticks at each look: the second computation took 3 and the inner result 1, the third 3 in all
    assert seconds == [5, 3 + 1, 1 + 3]


def test_a_data_set_without_validation_images_is_refused(tmp_path):
    path = plain_network(tmp_path / "g.pb")
    nothing = np.empty((0, 12, 12, 1), np.uint8), np.empty(0, int)
    with pytest.raises(UserError, match="no validation images to judge settings by"):
        Comparison(read_network(path), images(), nothing, SCALING)


def test_lists_multiply_out_and_equal_settings_count_once():
    assert len(expand(DEFAULT_GRID)) == 18
    settings = expand(
        {"method": ["min_diffs", "non_overflow"], "calibration": {"images": [20, 40], "batch": 8}}
    )
    assert settings == [
        {"method": method, "calibration": {"images": count, "batch": 8}}
        for method in ("min_diffs", "non_overflow")
        for count in (20, 40)
    ]
    assert varied(settings)[1] == {"method": "min_diffs", "calibration.images": "40"}
    # the default written out is the default; true is the group's defaults
    assert expand([{}, {"method": "min_diffs"}, {"equalization": [True, {"sweeps": 10}]}]) == [{}]
    assert expand({"method": []}) == []


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"metod": ["min_diffs"]}, "metod: unknown; did you mean method"),
        ({"method": ["min_diffs", "best"]}, "method: 'best'; expected one of non_overflow, min_diffs"),
        ({"compat": ["vai_q"], "fast_finetune": [True]}, "fast_finetune: the vendor's tool has no such step"),
        ({"diagnosis": [True, False]}, "diagnosis: not a key of a grid"),
    ],
)
def test_a_setting_that_the_quantizer_would_refuse_is_refused(grid, message):
    with pytest.raises(UserError, match=message):
        expand(grid)
