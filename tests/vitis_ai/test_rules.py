"""The vendor's tools as rules: planned, in the right containers, and run with stand-ins for the tools."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from workflow_copy import copy_of_run, state_of

from dpuflow.emulator import Emulator
from dpuflow.report.accuracy import write_report
from dpuflow.report.provenance import provenance
from dpuflow.xir import Graph

STAND_IN = Path(__file__).with_name("stand_in")
VENDOR_RULES = {
    "quantize_vai_q_tensorflow", "quantize_vai_q_tensorflow2", "predict_vai_q_tensorflow",
    "predict_vai_q_tensorflow2", "compile_vai_c_tensorflow", "compile_vai_c_tensorflow2", "compile_vai_c_xir",
}  # fmt: skip


@pytest.fixture(scope="session")
def example(repo, tmp_path_factory):
    """config/vitis_ai.yaml, with a folder of data that is there."""
    config = yaml.safe_load((repo / "config/vitis_ai.yaml").read_text())
    folder = tmp_path_factory.mktemp("data")
    for part in ("train", "test"):
        (folder / f"sign_mnist_{part}.csv").write_text("label\n")
    config["datasets"]["sign_mnist"]["source"]["folder"] = str(folder)
    return config


@pytest.mark.rules
def test_the_example_plans_every_tool_and_names_its_images(workflow, example):
    result = workflow.run("all", "-n", "--sdm", "apptainer", config=example)
    plan = workflow.planned(result)
    assert set(plan) >= VENDOR_RULES
    assert plan["run_emulator"] == 4 and plan["quantize_reference"] == plan["compile_reference"] == 1
    pulled = {line.split()[2] for line in result.stdout.splitlines() if "will be pulled" in line}
    assert pulled == {
        "docker://xilinx/vitis-ai-tensorflow-cpu:ubuntu2004-3.0.0.106",
        "docker://xilinx/vitis-ai-tensorflow2-cpu:ubuntu2004-3.0.0.106",
    }


@pytest.mark.fault("vendor", "containers of one release, board image of another", "message")
@pytest.mark.rules
def test_release_skew_stops_before_any_job(workflow, example):
    config = copy.deepcopy(example)
    config["targets"]["zcu102_tf1"]["release"] = "3.5"
    result = workflow.run("all", "-n", config=config)
    assert result.returncode == 1
    assert "containers are of release 3.0, the board image of 3.5" in result.stdout
    assert "Traceback" not in result.stdout and "Job stats" not in result.stdout


@pytest.mark.rules
def test_containers_and_environments_are_on_the_right_rules(workflow, example):
    (workflow.folder / "directives.yaml").write_text(yaml.safe_dump(example))
    program = Path(__file__).with_name("rule_directives.py")
    subprocess.run(
        [sys.executable, program, "directives.yaml", "directives.json"], cwd=workflow.folder, check=True,
        capture_output=True, env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )  # fmt: skip
    rules = json.loads((workflow.folder / "directives.json").read_text())
    assert {name for name, rule in rules.items() if rule["container"]} == VENDOR_RULES
    for name in VENDOR_RULES:  # a script would need dpuflow's Python inside the vendor's container
        assert rules[name]["shell"] and not rules[name]["script"] and not rules[name]["conda"]
    for name, rule in rules.items():
        if rule["script"]:
            assert rule["conda"] and not rule["container"], name
    assert {rules[name]["conda"] for name in ("train", "freeze", "evaluate_quantized")} == {"tensorflow.yaml"}
    assert {rules[name]["conda"] for name in ("report", "sweep_report")} == {"report.yaml"}
    assert {rules[name]["conda"] for name in ("run_emulator", "evaluate_vai_q")} == {"test.yaml"}


SMALL = "results/tiny/small"
# quantizer -> target, and what is asked for: a whole run would only add processes that import TensorFlow
FILES = {
    "ours": ("z_xir", ("quantization.json", "quantized_accuracy.json", "z_xir/compile.json")),
    "tf1": (
        "z_tf1",
        (
            "quantization.json",
            "quantized_accuracy.json",
            "z_tf1/compile.json",
            "z_tf1/emulator/board_accuracy.json",
        ),
    ),
    "tf2": ("z_tf2", ("quantization.json", "quantized_accuracy.json", "z_tf2/compile.json")),
}
TARGETS = [f"{SMALL}/{quantizer}/{name}" for quantizer, (_, names) in FILES.items() for name in names]


@pytest.fixture(scope="session")
def finished(workflow):
    """The workflow after a run with the stand-in runtime, to be looked at."""
    result = workflow.run(*TARGETS, "--sdm", "apptainer", "--quiet", "rules")
    assert result.returncode == 0, result.stdout[-6000:]
    before = state_of(workflow)
    yield workflow
    assert state_of(workflow) == before, "a test has changed what the others look at"


def read(path):
    return json.loads(path.read_text())


@pytest.mark.slow
@pytest.mark.rules
def test_records_of_the_frozen_graph_flow(finished):
    folder = finished.path("results/tiny/small/tf1")
    record = read(folder / "quantization.json")
    assert record["quantizer"] == "vai_q_tensorflow" and "stand-in" in record["note"]
    assert record["calibration"]["images"] == 70 and record["settings"]["method"] == 1
    rows = {row["layer"]: row for row in record["layers"]}
    assert rows["input"]["fix_point"] == 7  # (pixel - 128) / 128
    for name in ("conv1", "logits"):
        row = rows[name]
        cut = row["input_fix_point"] + row["weights_fix_point"] - row["fix_point"]
        assert row["shift_cut"] == cut and 0 <= cut <= 16
    compiled = read(folder / "z_tf1/compile.json")
    assert compiled["compiler"] == "vai_c_tensorflow" and compiled["fingerprint"] == "0x101000056010407"
    assert compiled["arch"] == "/opt/vitis_ai/compiler/arch/DPUCZDX8G/ZCU102/arch.json"
    assert compiled["dpu_subgraphs"] == 1 and not compiled["machine_code"] and not compiled["findings"]
    # the float graph's FixNeuron simulation and the compiled integers answer alike
    board = read(folder / "z_tf1/emulator/board_accuracy.json")
    assert board["agreement_with_quantized"]["agreement"] == 1.0


@pytest.mark.slow
@pytest.mark.rules
def test_records_of_the_keras_flow(finished):
    folder = finished.path("results/tiny/small/tf2")
    record = read(folder / "quantization.json")
    assert record["quantizer"] == "vai_q_tensorflow2" and record["release"] == "2.5"
    rows = {row["layer"]: row for row in record["layers"]}
    assert rows["conv1"].keys() >= {"weights_fix_point", "bias_fix_point", "fix_point"}
    compiled = read(folder / "z_tf2/compile.json")
    assert compiled["fingerprint"] == "0x101000016010407"  # release 2.5
    # no board is named, so the container's arch.json files are not trusted
    assert read(folder / "z_tf2/vitis_ai/arch.json") == {"fingerprint": "0x101000016010407"}


@pytest.mark.slow
@pytest.mark.rules
def test_our_quantized_graph_compiled_by_vai_c_xir(finished):
    folder = finished.path(f"{SMALL}/ours/z_xir")
    compiled = read(folder / "compile.json")
    assert compiled["compiler"] == "vai_c_xir" and compiled["release"] == "3.5"
    assert "Target architecture: DPUCZDX8G_ISA1_B4096" in (folder / "vitis_ai/compile.log").read_text()
    assert [row["name"] for row in compiled["layers"]] == ["conv1", "max_pool1", "logits"]
    assert {op.device for op in Graph.load(folder / "small.quantized.xmodel").ops} == {None}


@pytest.mark.slow
@pytest.mark.rules
def test_the_compiled_file_is_the_tools_with_the_input_scaling_behind(finished):
    folder = finished.path("results/tiny/small/tf1/z_tf1")
    untouched = (folder / "vitis_ai/small.xmodel").read_bytes()
    data = (folder / "small.xmodel").read_bytes()
    assert data.startswith(untouched) and len(data) > len(untouched)
    assert "input_subtract" not in Graph.load(folder / "vitis_ai/small.xmodel").attrs
    graph = Graph.load(folder / "small.xmodel")
    assert (graph.attrs["input_subtract"], graph.attrs["input_divide"]) == (128.0, 128.0)
    assert Emulator(folder / "small.xmodel").input_fix_point == 7


@pytest.mark.slow
@pytest.mark.rules
def test_the_report_shows_ours_and_theirs_side_by_side(finished, tmp_path):
    entries = []
    for quantizer, (target, names) in FILES.items():
        folder = finished.path(f"{SMALL}/{quantizer}")
        files = {name.rpartition("/")[2].partition(".")[0]: folder / name for name in names}
        ids = {
            "dataset": "tiny",
            "model": "small",
            "quantizer": quantizer,
            "target": target,
            "runner": "emulator",
        }
        entries.append({**ids, "files": {"dataset": finished.path("results/tiny/dataset.h5"), **files}})
    paths = [tmp_path / name for name in ("accuracy.html", "accuracy.md", "accuracy.json")]
    content = write_report(entries, *paths, provenance({}, (), None))
    assert [run["quantizer"] for run in content["runs"]] == ["ours", "tf1", "tf2"]
    page = paths[0].read_text()
    for text in (
        "vai_q_tensorflow",
        "vai_q_tensorflow2",
        "vai_c_xir",
        "vai_c_tensorflow2",
        "stand-in for the vendor",
    ):
        assert text in page


@pytest.mark.slow
@pytest.mark.rules
def test_a_second_run_has_nothing_to_do(finished):
    result = finished.run(*TARGETS, "-n", "--sdm", "apptainer")
    assert "Nothing to be done" in result.stdout, result.stdout[-3000:]


@pytest.mark.fault("vendor", "no container runtime", "message")
@pytest.mark.slow
@pytest.mark.rules
def test_without_a_container_the_reason_is_in_the_log(finished, tmp_path):
    target = "results/tiny/small/tf1/z_tf1/vitis_ai/small.xmodel"
    result = copy_of_run(finished, tmp_path / "flow").run(
        target, "--force", "--rerun-triggers", "mtime", runtime=False
    )
    assert result.returncode == 1
    assert (
        "vai_c_tensorflow runs in a container of Vitis AI: call snakemake with --sdm apptainer"
        in result.stdout
    )


def stand_in(*words, cwd, root):
    environment = {**os.environ, "DPUFLOW_STAND_IN": str(root), "DPUFLOW_STAND_IN_PYTHON": sys.executable}
    return subprocess.run(
        [STAND_IN / "apptainer", *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def container(tmp_path_factory):
    """Factory: what the stand-in says of a shell command in the container of release 3.0, TensorFlow 1."""
    folder = tmp_path_factory.mktemp("stand_in")
    url = "docker://xilinx/vitis-ai-tensorflow-cpu:ubuntu2004-3.0.0.106"
    assert stand_in("pull", "--name", "a.simg", url, cwd=folder, root=folder).returncode == 0
    enter = ". /opt/vitis_ai/conda/etc/profile.d/conda.sh; conda activate vitis-ai-tensorflow; "

    def run(command, activate=True):
        words = ("exec", "--home", folder, "a.simg", "bash", "-c", (enter if activate else "") + command)
        return stand_in(*words, cwd=folder, root=folder / "containers")

    return run


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("vai_q_tensorflow quantize --input_frozen_graph f.pb", "the following arguments are required"),
        ("vai_q_tensorflow inspect", "invalid choice"),
        ("vai_c_tensorflow --frozen_pb q.pb --arch a.json --output_dir o --net_name n --opt {}", "required"),
        ("vai_c_tensorflow2 -m q.h5", "command not found"),  # another framework's container has it
        ("cat /work/secret", "the container has no /work/secret of the host"),
        ("conda activate vitis-ai-tensorflow2", "Could not find conda environment"),
    ],
)
def test_the_stand_ins_refuse_deviations(container, command, complaint):
    result = container(command)
    assert result.returncode != 0 and complaint in result.stderr


def test_the_stand_in_container_has_no_tools_before_activation(container):
    result = container("vai_q_tensorflow --help", activate=False)
    assert result.returncode == 127 and "command not found" in result.stderr


def test_the_stand_in_pulls_published_images_only(tmp_path):
    result = stand_in("pull", "--name", "a.simg", "docker://nobody/vitis-ai:3.0", cwd=tmp_path, root=tmp_path)
    assert result.returncode != 0 and "no such image" in result.stderr
