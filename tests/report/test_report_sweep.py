"""The sweep page: ranking, seeds, Pareto fronts, speed at a thousand runs."""

import itertools

import pytest
from counted_calls import counted_calls
from hypothesis import given
from hypothesis import strategies as st
from made_up_runs import make_run, make_sweep

from dpuflow.accuracy.evaluation import mean_interval
from dpuflow.base.errors import UserError
from dpuflow.base.files import read_json, write_json
from dpuflow.report import sweep


@pytest.fixture(scope="module")
def made_up_sweep(tmp_path_factory):
    """(folder with sweep.html and sweep.json of 48 runs, their entries)."""
    folder = tmp_path_factory.mktemp("sweep")
    entries = make_sweep(folder, 48)
    sweep.write_sweep(entries, folder / "sweep.html", folder / "sweep.json")
    return folder, entries


def test_runs_are_ranked_and_seeds_averaged(made_up_sweep):
    folder, entries = made_up_sweep
    part = read_json(folder / "sweep.json")["datasets"][0]
    accuracies = [row["accuracy"] for row in part["runs"]]
    assert len(accuracies) == len(entries) == 48 and accuracies == sorted(accuracies, reverse=True)
    assert [row["rank"] for row in part["runs"]] == list(range(1, 49))
    assert len(part["configurations"]) == 16
    wide = next(c for c in part["configurations"] if c["name"] == "wide / reference / kv260 / emulator")
    rows = [
        r for r in part["runs"] if (r["model"], r["quantizer"], r["target"]) == ("wide", "reference", "kv260")
    ]
    assert sorted(row["seed"] for row in rows) == [0, 1, 2]
    mean, interval = mean_interval([row["accuracy"] for row in rows])
    assert wide["mean"] == pytest.approx(mean) and wide["interval95"] == pytest.approx(interval)
    assert wide["xmodel_bytes"] == 900_000 and wide["latency_us"] == 900


def test_time_spent_is_the_sum_of_the_jobs_known(made_up_sweep):
    folder, _ = made_up_sweep
    runs = read_json(folder / "sweep.json")["datasets"][0]["runs"]
    first = next(
        r
        for r in runs
        if (r["model"], r["seed"], r["quantizer"], r["target"]) == ("tiny", 0, "reference", "kv260")
    )
    assert first["seconds"] == 104.0


def test_the_page_says_what_is_estimated_and_emulated(made_up_sweep):
    html = (made_up_sweep[0] / "sweep.html").read_text(encoding="utf-8")
    assert "no device took part" in html and "else from the layers, not measured" in html
    assert html.count("<svg") == 3 and "measured on a device" not in html


def test_single_runs_carry_their_own_interval(tmp_path):
    content = sweep.write_sweep([make_run(tmp_path, full=False)], tmp_path / "s.html")
    only = content["datasets"][0]["configurations"][0]
    assert only["interval95"] is None
    assert only["interval_of_single_run95"] == content["datasets"][0]["runs"][0]["interval95"]
    assert only["latency_us"] is None and content["datasets"][0]["pareto_fronts"] == {}


def test_a_run_without_a_board_is_ranked_by_its_last_stage(tmp_path):
    entry = make_run(tmp_path, full=False)
    del entry["files"]["board_accuracy"]
    content = sweep.write_sweep([entry], tmp_path / "s.html")
    assert content["datasets"][0]["runs"][0]["stage"] == "quantized"
    assert "quantized stage only" in (tmp_path / "s.html").read_text(encoding="utf-8")


def test_mistakes_are_named(tmp_path):
    a, b = make_run(tmp_path, "a", full=False), make_run(tmp_path, "b", full=False)
    for key in ("keras", "frozen", "quantized", "board"):
        path = b["files"][f"{key}_accuracy"]
        write_json(path, {**read_json(path), "labels_sha256": "0" * 64})
    with pytest.raises(UserError, match="runs of toy were measured on different test images"):
        sweep.write_sweep([a, b], tmp_path / "s.html")
    with pytest.raises(UserError, match="toy / m names no accuracy record"):
        sweep.write_sweep([{"dataset": "toy", "model": "m"}], tmp_path / "s.html")
    with pytest.raises(UserError, match="no runs"):
        sweep.write_sweep([], tmp_path / "s.html")
    (tmp_path / "bad.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(UserError, match=r"bad.tsv: not a benchmark file"):
        sweep.write_sweep([{**a, "benchmarks": [tmp_path / "bad.tsv"]}], tmp_path / "s.html")
    assert not (tmp_path / "s.html").exists()


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"model": "signnet-s3"}, ("signnet", 3)),
        ({"model": "signnet"}, ("signnet", None)),
        ({"model": "signnet", "seed": 4}, ("signnet", 4)),
        ({"model": "net-small"}, ("net-small", None)),
    ],
)
def test_seeds_come_from_the_name(entry, expected):
    assert sweep.split_seed(entry) == expected


POINTS = st.lists(st.tuples(st.none() | st.integers(0, 9), st.integers(0, 9)), max_size=12)


@given(POINTS)
def test_pareto_front_is_what_nothing_beats(points):
    front = sweep.pareto_front(points)
    chosen = [points[i] for i in front]
    assert chosen == sorted(chosen) and len(set(chosen)) == len(chosen)
    assert all(a[1] < b[1] for a, b in itertools.pairwise(chosen))
    for i, (cost, accuracy) in enumerate(points):
        if cost is None:
            assert i not in front
            continue
        beaten = any(
            other <= cost and good >= accuracy and (other, good) != (cost, accuracy)
            for other, good in points
            if other is not None
        )
        assert beaten != ((cost, accuracy) in chosen)


def test_five_times_the_runs_cost_five_times_as_much(tmp_path):
    entries = make_sweep(tmp_path, 200, images=96)
    # a thousand rows from two hundred runs: five quantizers share each run's files
    many = [{**entry, "quantizer": f"{entry['quantizer']}{i}"} for i in range(5) for entry in entries]
    paths = tmp_path / "sweep.html", tmp_path / "sweep.json"
    _, few = counted_calls(sweep.write_sweep, many[:20], *paths)
    _, more = counted_calls(sweep.write_sweep, many[:100], *paths)
    assert more < 6 * few
    content = sweep.write_sweep(many, *paths)
    assert len(content["datasets"][0]["runs"]) == 1000
    assert (tmp_path / "sweep.html").stat().st_size < 3_000_000
