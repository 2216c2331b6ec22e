"""The benchmarks work: their harness on small things, and each script far enough that it cannot rot.

Nothing here depends on how fast the machine is.
"""

import importlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from onnx_models import small_classifier

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py"))
HELPERS = {
    "board_fit",
    "board_networks",
    "measuring",
    "subject",
    "contenders",
    "workflow_runs",
    "plain_chain",
    "real_size_networks",
    "torch_networks",
}
sys.path.insert(0, str(FOLDER))
ON_REQUEST = {"onnx_networks"}
"""Scripts that make a table of the docs and need an hour."""

measuring, run_all, subject = map(importlib.import_module, ("measuring", "run_all", "subject"))


def run(repo, script, *arguments):
    environment = os.environ | {"COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, FOLDER / f"{script}.py", *arguments],
        cwd=repo,
        env=environment,
        capture_output=True,
        text=True,
    )


def allocate(mebibytes):
    """A function for a child process: what it holds is written, so it is resident."""
    return np.ones(mebibytes << 20, np.uint8).sum() // (1 << 20)


def test_medians_have_a_warm_up_and_take_turns(monkeypatch):
    now, calls = [0.0], []
    durations = {"a": iter([9, 1, 5, 2]), "b": iter([9, 7, 7, 8])}
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def call(name):
        calls.append(name)
        now[0] += next(durations[name])

    monkeypatch.setattr(time, "process_time", lambda: 2 * now[0])
    assert measuring.median_times({n: lambda n=n: call(n) for n in "ab"}, 3) == {"a": (2, 4), "b": (7, 14)}
    assert calls == list("abababab")


def test_a_child_process_has_a_peak_of_its_own():
    held = np.ones(300 << 20, np.uint8)  # the child must not count what its parent holds
    one = measuring.in_child(allocate, 64, repeats=3, warm_up=False, imports=("numpy",))
    assert one.result == 64 and len(one.seconds) == 3 and min(one.seconds) > 0
    assert 60 < one.grown < 140 and one.grown < one.peak < 300
    assert one.median == sorted(one.seconds)[1]
    assert held[-1] == 1


def test_goals_decide_the_exit_status(capsys):
    goals = measuring.Goals()
    goals.add("3 x as fast (goal 2)", True)
    assert goals.finish() == 0
    goals.add("7 s (goal 5)", False)
    assert goals.finish() == 1
    text = capsys.readouterr().out
    assert measuring.goal_lines(text)[-2:] == ["- met: 3 x as fast (goal 2)", "- MISSED: 7 s (goal 5)"]
    quick = measuring.Goals(binding=False)
    quick.add("7 s (goal 5)", False)
    assert quick.finish() == 0 and capsys.readouterr().out == "- not judged: 7 s (goal 5)\n"


def test_table():
    assert measuring.table(("a", "b"), [("x", 1)]) == "| a | b |\n| --- | ---: |\n| x | 1 |\n"


def test_every_script_is_run_by_run_all_and_explains_itself(repo):
    assert {benchmark.name for benchmark in run_all.BENCHMARKS} == set(SCRIPTS) - HELPERS - ON_REQUEST - {
        "run_all"
    }
    for script in set(SCRIPTS) - HELPERS:
        done = run(repo, script, "--help")
        assert done.returncode == 0 and done.stdout.startswith("usage: "), script + done.stderr


def test_many_choices_of_timing_at_once_give_what_the_cycle_estimate_gives():
    fit = importlib.import_module("board_fit")
    from dpuflow.device.targets import get_target
    from dpuflow.dpuczdx8g.isa.cycles import schedule
    from dpuflow.dpuczdx8g.timing import HOST, TIMING, figures
    from tests.isa.quantized_builder import Builder

    b = Builder((24, 20, 16))
    x = b.pool(b.depthwise(b.conv("input", 40)))
    networks = importlib.import_module("board_networks")
    target = get_target("DPUCZDX8G_ISA1_B1152")
    (code,) = networks.our_code(b.quantized("n", b.dense(b.flatten(x), 10)), target)
    cycles = fit.cycles_of_many(code)
    (dpu, share), by_layers = fit.in_use()
    for board in fit.BOARDS:
        column = fit.STRETCHES.index(fit.stretch(fit.SHARE[share], board))
        expected = schedule(code, TIMING.on(board), board.cores).cycles
        assert cycles[dpu, column] == pytest.approx(expected, rel=1e-9)
    zcu104 = get_target("zcu104").board
    frames = fit.frames_of_many([code], {"zcu104": zcu104}, HOST.fetching(10, 1))["zcu104"]
    assert frames.shape == (len(fit.DPU_CHOICES), len(fit.SHARE))
    times = [schedule(code, TIMING.on(zcu104), cores).cycles / 300 for cores in (1, 2)]
    board = figures(*times, 2, 24 * 20 * 16, 10, 1)["frames_per_second"]["board"]
    assert frames[dpu, share] == pytest.approx(board, rel=1e-3)
    # what is left out is judged by the choice that suits the others: here it is off by a half
    published = {name: {"zcu104": float(frames[dpu, share])} for name in "ab"}
    estimates = {("a", "ours"): {"zcu104": frames}, ("b", "ours"): {"zcu104": 1.5 * frames}}
    left_out = fit.leave_one_out(estimates, published, fit.of_code)
    assert left_out["b", "ours"]["zcu104"] == pytest.approx(0.5, abs=0.01)
    assert "issue 60" in fit.of_code((dpu, share)) and "kept 0.5" in fit.of_layers(by_layers)


def test_many_choices_of_timing_at_once_give_what_the_estimate_by_layers_gives():
    fit = importlib.import_module("board_fit")
    from dpuflow.device.targets import get_target
    from dpuflow.dpuczdx8g.cost_model import estimate
    from tests.compiler.shaped_networks import mobile_quarter

    network, targets = mobile_quarter(), {board: get_target(board) for board in ("kv260", "zcu102")}
    found = fit.frames_by_layers(network, targets)
    for board, frames in found.items():
        expected = estimate(network, targets[board])["frames_per_second"]["board"]
        assert frames.shape == (len(fit.LAYER_CHOICES), len(fit.SHARE))
        assert frames[fit.in_use()[1]] == pytest.approx(expected, rel=1e-3)


def test_published_networks_name_their_constructors():
    networks = importlib.import_module("board_networks")
    assert networks.maker("vit", {}) is None and networks.maker("vit", {"keras": "ViT(1, 2)"}) is None
    assert networks.maker("yolov3_416", {}) is networks.yolov3
    found = networks.CALL.match("MobileNet(alpha=0.25, input_shape=(128, 128, 3))").groups()
    assert found == ("MobileNet", "0.25", "128", "128", "3")
    assert networks.CALL.match("ResNet50V2(input_shape=(299, 299, 3))").groups()[2:] == ("299", "299", "3")


def test_the_page_keeps_the_sections_that_are_not_measured_anew():
    sections = {
        "evaluation": "## Evaluation\n\n- met: fast (goal 1)",
        "csv_reading": "## Reading CSV\n\n| a |\n| --- |\n\n- MISSED: slow (goal 2)",
    }
    page = run_all.page_of(sections)
    assert run_all.sections_of(page) == sections
    assert "1 of 2 met, 1 missed." in page
    assert "- met: fast (goal 1) (evaluation)" in page and "- MISSED: slow (goal 2) (csv_reading)" in page
    assert page.index("## Goals") < page.index("## Reading CSV") < page.index("## Evaluation")
    assert "| processor | " in page and f"numpy {np.__version__}" in page


def test_a_failing_benchmark_is_seen(monkeypatch, tmp_path):
    (tmp_path / "broken.py").write_text("import sys\nprint('half a result')\nsys.exit(3)\n")
    monkeypatch.setattr(run_all, "FOLDER", tmp_path)
    section, failed = run_all.run(run_all.Benchmark("broken"), quick=True)
    assert failed and "half a result" in section
    assert measuring.goal_lines(section) == ["- MISSED: broken.py failed with exit status 3"]


def test_the_trained_network_is_measured_where_it_is_there(monkeypatch, tmp_path):
    files = tmp_path / "network.h5", tmp_path / "pictures.zip"
    assert run_all.trained(*files) == []
    files[0].touch(), files[1].touch()
    assert run_all.trained(*files) == ["--trained", files[0], "--data", files[1]]
    assert run_all.PARTS["real_size"] == ("real_size_emulator", "real_size_quantizer")
    assert {name for names in run_all.PARTS.values() for name in names} == {
        b.name for b in run_all.BENCHMARKS
    }


def test_a_folder_that_is_not_there(repo, tmp_path):
    done = run(repo, "run_all", "--data", str(tmp_path / "none"), "--only", "csv_reading")
    assert done.returncode == 1 and "no such folder" in done.stderr and "Traceback" not in done.stderr


def test_the_whole_page_in_small(repo, tmp_path):
    output = tmp_path / "results.md"
    done = run(repo, "run_all", "--quick", "--only", "csv_reading", "isa", "--output", str(output))
    assert done.returncode == 0, done.stderr
    page = output.read_text()
    sections = run_all.sections_of(page)
    assert list(sections) == ["csv_reading", "isa"]
    rows = [
        line.split(" | ") for line in sections["csv_reading"].splitlines() if line.startswith("| dpuflow")
    ]
    assert [row[1] for row in rows] == ["300", "300", "900", "900"]
    assert len(measuring.goal_lines(page)) == 2 * 6 and "Not judged." in page


@pytest.mark.slow
def test_the_other_ways_to_quantize_and_run_the_same_network(tmp_path):
    contenders = pytest.importorskip("contenders")
    pytest.importorskip("onnxruntime", reason="needs requirements-bench.txt")
    from dpuflow.base.pixels import scale_pixels
    from dpuflow.quantize.folding import fold
    from dpuflow.tfgraph.freeze import FrozenGraph
    from dpuflow.tfgraph.graph_reader import read_network_and_nodes

    frozen = tmp_path / "frozen.pb"
    subject.random_frozen_graph(frozen)
    x = scale_pixels(subject.random_images(40)[0], {"subtract": 128, "divide": 128})
    network, nodes = read_network_and_nodes(frozen)
    ends = nodes["input"], nodes["output"]
    expected = FrozenGraph(frozen, *ends).run(x)
    # the tail is a smaller batch
    lite = contenders.TfLite(contenders.tflite_int8(frozen, ends, x), 32, 1)
    answers = lite.run(lite.quantize(x))
    assert answers.shape == expected.shape and answers.dtype == np.int8
    assert np.abs((answers.astype(float) + 128) / 256 - expected).max() < 0.03
    contenders.onnx_int8(fold(network)[0], x, tmp_path / "int8.onnx")
    whole = contenders.OnnxRuntime(tmp_path / "int8.float.onnx", 32, 1)
    assert np.abs(whole.run(whole.quantize(x)) - expected).max() < 1e-5
    runtime = contenders.OnnxRuntime(tmp_path / "int8.onnx", 32, 1)
    assert np.abs(runtime.run(runtime.quantize(x)) - expected).max() < 0.03


def test_what_becomes_of_an_onnx_file_is_measured(tmp_path):
    """A small one, of the script whose table takes an hour."""
    onnx_networks = importlib.import_module("onnx_networks")
    small_classifier(tmp_path / "small.onnx", shape=(3, 28, 28))
    row = onnx_networks.measure(tmp_path / "small.onnx", 28)
    assert row["outcome"] == "verified code"
    assert float(row["difference"]) < 1e-5 and row["layers"] > 2
