"""The two scripts: quantized_model.h5 -> xmodel with machine code -> predictions and accuracy."""

import importlib.util

import numpy as np
import pytest
from test_native_xmodel import signs

from dpuflow.accuracy.evaluation import accuracy_record
from dpuflow.base.errors import UserError
from dpuflow.base.files import read_json, write_json
from dpuflow.datasets.dataset_file import build_dataset, read_dataset
from dpuflow.datasets.labels import Labels
from dpuflow.dpuczdx8g.isa.code import decode, encode
from dpuflow.emulator import Emulator
from dpuflow.network.quantized_file import write_quantized
from dpuflow.workflow.scripting import parse_assignments
from dpuflow.xir import Graph

TARGET = "{hardware: {dpu: DPUCZDX8G_ISA1_B1600, release: '2.5'}, on_cpu: error}"


def run_script(repo, name, *words):
    """Call the script's main with dotted assignments."""
    spec = importlib.util.spec_from_file_location(name, repo / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(parse_assignments([*words, "threads=1"]))


@pytest.fixture(scope="module")
def folder(repo, tmp_path_factory):
    """A quantized model, a dataset of 24 test images, the model compiled by the script."""
    folder = tmp_path_factory.mktemp("native")
    random = np.random.default_rng(0)
    for name, count in (("train", 60), ("test", 24)):
        pixels = random.integers(0, 256, (count, 784))
        rows = np.column_stack([np.arange(count) % 25, pixels])
        header = ",".join(["label", *(f"pixel{i + 1}" for i in range(784))])
        np.savetxt(folder / f"{name}.csv", rows, "%d", ",", header=header, comments="")
    labels = Labels(tuple("ABCDEFGHIJKLMNOPQRSTUVWXY"), tuple(range(25)))
    build_dataset(
        folder / "dataset.h5", folder / "train.csv", folder / "test.csv", labels,
        validation={"fraction": 0.2}, calibration={"images": 10, "seed": 1},
    )  # fmt: skip
    write_quantized(folder / "quantized_model.h5", signs())
    run_script(
        repo,
        "compile_native",
        f"input.dataset={folder}/dataset.h5",
        f"input.model={folder}/quantized_model.h5",
        f"output.xmodel={folder}/signs.xmodel",
        f"output.quantized={folder}/signs.quantized.xmodel",
        f"output.report={folder}/compile.json",
        "wildcards.target=mine",
        f"params.target={TARGET}",
    )
    dataset, (expected, labels) = read_dataset(folder / "dataset.h5"), emulated(folder)
    record = accuracy_record("quantized", "test", labels, expected, dataset.class_names)
    write_json(folder / "quantized_accuracy.json", record)
    return folder


def emulated(folder):
    """The emulator's answers for the test images, and their labels."""
    images, labels = read_dataset(folder / "dataset.h5").subset("test")
    with Emulator(folder / "signs.xmodel") as emulator:
        return emulator.run(emulator.quantize_input(images)).argmax(axis=1), labels


def run_words(folder, xmodel="signs.xmodel"):
    return (
        f"input.dataset={folder}/dataset.h5",
        f"input.xmodel={folder}/{xmodel}",
        f"input.quantized={folder}/quantized_accuracy.json",
        f"output.predictions={folder}/predictions.csv",
        f"output.accuracy={folder}/board_accuracy.json",
    )


def test_compile_native(folder):
    report = read_json(folder / "compile.json")
    assert report["verification"]["images"]["from_calibration"] >= 2
    assert report["compiler"] == "native" and report["machine_code"] and report["release"] == "2.5"
    (dpu,) = Graph.load(folder / "signs.xmodel").subgraphs("DPU")
    assert dpu.attrs["dpu_fingerprint"] == 0x101000016010404
    assert len(dpu.attrs["mc_code"]) == report["programs"][0]["code_bytes"]
    assert not Graph.load(folder / "signs.quantized.xmodel").subgraphs("DPU")


def test_run_isa_simulator(repo, folder):
    expected, _ = emulated(folder)
    run_script(repo, "run_isa_simulator", *run_words(folder))
    record = read_json(folder / "board_accuracy.json")
    assert record["predictions"] == expected.tolist()
    assert record["runner"] == "isa_simulator" and "no board" in record["how"]
    assert record["machine_code"]["images"] == record["machine_code"]["equal_to_emulator"] == 24
    assert record["machine_code"]["programs"][0]["machine"] == "B1600"
    assert record["agreement_with_quantized"]["agreement"] == 1.0
    assert (folder / "predictions.csv").read_text().count("\n") == 25


@pytest.mark.fault("xmodel", "machine code that answers otherwise than the model", "refused")
def test_run_isa_simulator_refuses_code_that_differs(repo, folder):
    """A changed shift is legal code, but not this network's."""
    graph = Graph.load(folder / "signs.xmodel")
    (dpu,) = graph.subgraphs("DPU")
    instructions = decode(dpu.attrs["mc_code"])
    next(op for op in instructions if op.name == "CONVINIT").fields["shift_cut"] += 2
    dpu.attrs["mc_code"] = encode(instructions)
    graph.save(folder / "wrong.xmodel")
    with pytest.raises(
        UserError, match=r"wrong.xmodel: machine code and emulator differ on \d+ of 24 images"
    ):
        run_script(repo, "run_isa_simulator", *run_words(folder, "wrong.xmodel"))
