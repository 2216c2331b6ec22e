"""The board application's own parts, without a board."""

import ast
import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from application_modules import module

from dpuflow.accuracy.predictions import COLUMNS
from dpuflow.base.pixels import input_table
from dpuflow.board import application
from dpuflow.board.connection import AGENT
from dpuflow.virtual_board.run import environment


@pytest.fixture(scope="module")
def app():
    """The application's app.py as a module."""
    return module("app")


@pytest.fixture(scope="module")
def board_info():
    return module("board_info")


@pytest.mark.parametrize("fix_point", [-3, -1, 0, 1, 3, 5, 6, 7, 9])
@pytest.mark.parametrize(("subtract", "divide"), [(0, 255), (128, 128), (0, 1), (127.5, 127.5), (33.3, 78.6)])
def test_the_input_is_rounded_as_the_quantizer_does(subtract, divide, fix_point):
    assert np.array_equal(
        module("pixels").input_table(subtract, divide, fix_point),
        input_table(subtract, divide, fix_point),
    )


def test_the_brightest_pixel_saturates_and_halves_go_up():
    app = module("pixels")
    assert app.input_table(0, 255, 7)[255] == 127  # 128 truncated to int8 would be -128
    table = app.input_table(128, 128, 6)  # (pixel - 128) / 2: every odd pixel is a half
    assert (table[125], table[127], table[129]) == (-1, 0, 1)


def test_the_files_run_on_old_python():
    assert {path.name for path in application.FOLDER.glob("*.py")} == set(application.FILES)
    assert set(application.files()) == {*application.FILES, "decode.py"}
    for content in application.files().values():
        source = content.decode()
        ast.parse(source, feature_version=(3, 6))
        imported = {
            alias.name.split(".")[0]
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        imported |= {n.module for n in ast.walk(ast.parse(source)) if isinstance(n, ast.ImportFrom)}
        own = {Path(other).stem for other in application.files()}
        allowed = set(sys.stdlib_module_names) | {"numpy", "xir", "vart"} | own
        assert imported <= allowed
        assert "capture_output" not in source and "missing_ok" not in source  # younger than 3.6


def test_the_agent_runs_on_old_python_alone():
    source = AGENT.read_text()
    ast.parse(source, feature_version=(3, 6))
    assert "dpuflow" not in {
        n.names[0].name for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Import)
    }
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(ast.parse(source)))


XDPUTIL = """WARNING: Logging before InitGoogleLogging() is written to STDERR
{
    "DPU IP Spec":{"DPU Core Count":2, "IP version":"v4.1.0"},
    "VAI Version":{"libxir.so":"xir 3.0"},
    "kernels":[
        {"DPU Arch":"DPUCZDX8G_ISA1_B4096", "fingerprint":"0x101000056010407", "name":"DPU Core 0"},
        {"DPU Arch":"", "fingerprint":"0x0", "name":"a kernel that is no DPU"}
    ]
}
"""


def test_the_answer_of_xdputil(board_info):
    data, fingerprints = board_info.parse_xdputil(XDPUTIL)
    assert fingerprints == [0x101000056010407]
    assert data["DPU IP Spec"]["IP version"] == "v4.1.0"
    # not JSON at all (an older release): the words are still found
    assert board_info.parse_xdputil('x "fingerprint" : "0x1000020F6014407", y')[1] == [0x1000020F6014407]
    assert board_info.parse_xdputil("no device") == ({}, [])


def query(folder, **variables):
    done = subprocess.run(
        [sys.executable, str(application.FOLDER / "app.py"), "--query"],
        env={"PATH": str(folder), **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def tool(folder, name, text):
    path = folder / name
    path.write_text(f"#!/bin/sh\n/bin/cat <<'END'\n{text}\nEND\n")
    path.chmod(0o755)


def test_query_with_and_without_tools(tmp_path):
    answer = query(tmp_path)
    assert answer["fingerprint"] is None and answer["emulated"] is False
    assert answer["runtime"]["vart"].startswith("missing")
    tool(
        tmp_path, "show_dpu", "device_core_id=0 device= 0 core = 0 fingerprint = 0x101000016010407 batch = 1"
    )
    answer = query(tmp_path)
    assert (answer["fingerprint"], answer["fingerprint_from"]) == ("0x101000016010407", "show_dpu")
    tool(tmp_path, "xdputil", XDPUTIL)
    answer = query(tmp_path)
    assert (answer["fingerprint"], answer["fingerprint_from"]) == ("0x101000056010407", "xdputil query")


def test_query_on_the_virtual_board_says_that_it_is_one(tmp_path):
    answer = query(tmp_path, **{**environment(), "PATH": environment()["PATH"]})
    assert answer["emulated"] is True
    assert answer["runtime"] == {"vart": "virtual board (emulated)", "xir": "virtual board (emulated)"}
    assert answer["xdputil"]["DPU IP Spec"]["IP version"] == "virtual board (emulated)"


def test_predictions_csv():
    answers = module("answers")
    logits = np.array([[3, 3, -128], [-5, 0, 127]], np.int8)
    scores = answers.softmax(logits, 1)
    text = answers.predictions_csv(np.array([1, 2]), logits, scores, ["A", 'B "b", c', "D"])
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == [*COLUMNS, "q_A", 'q_B "b", c', "q_D"]
    assert rows[1] == ["0", "1", "0", 'B "b", c', "A", "0.5", "3", "3", "-128"]  # the first of equals
    assert rows[2] == ["1", "2", "2", "D", "D", "1", "-5", "0", "127"]


def test_softmax():
    values = module("answers").softmax(np.array([[127, -128], [4, 0]], np.int8), 2)
    assert values[1].tolist() == pytest.approx([1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))])
    assert values.sum(axis=1).tolist() == pytest.approx([1, 1]) and np.isfinite(values).all()


def test_work_is_handed_out_once_and_stops_after_an_error(app):
    work = app.Work(10, 4)
    assert [work.take() for _ in range(4)] == [(0, 4), (4, 8), (8, 10), None]
    work = app.Work(10, 4)
    work.error = ValueError()
    assert work.take() is None


@pytest.mark.fault("board", "option of the application: {id}", "refused")
@pytest.mark.parametrize("words", [["--threads", "0"], ["--runs", "0"], ["--limit", "-1"], ["--batch", "x"]])
def test_wrong_options(app, words, capsys):
    with pytest.raises(SystemExit):
        app.arguments(words)
    assert "error" in capsys.readouterr().err
