"""The bundle: same bytes, complete, checked; the application runs from it."""

import hashlib
import io
import json
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from small_model import CLASSES, small_images

from dpuflow.base.errors import UserError
from dpuflow.board import application, bundle
from dpuflow.board.bundle import Bundle
from dpuflow.device.targets import get_target, load_targets
from dpuflow.virtual_board.run import environment
from dpuflow.virtual_board.run import run as run_on_virtual_board

KV260 = get_target("kv260")


def build(path, xmodel, **changes):
    images, labels = small_images()
    parts = {"images": images, "labels": labels, "class_names": CLASSES, "target": KV260, "split": "test"}
    parts |= changes
    bundle.build(path, xmodel, **parts)
    return path


def test_two_builds_are_equal_and_nothing_is_of_this_machine(xmodel, tmp_path, bundle_tar):
    path = build(tmp_path / "elsewhere" / "x.tar", xmodel)
    data = path.read_bytes()
    assert data == bundle_tar.read_bytes()
    assert str(tmp_path).encode() not in data and b"/root" not in data
    with tarfile.open(path) as archive:
        entries = archive.getmembers()
    assert [entry.name for entry in entries] == sorted(entry.name for entry in entries)
    assert {(entry.mtime, entry.uid, entry.gid, entry.uname) for entry in entries} == {(0, 0, 0, "")}
    assert {entry.name.split("/")[:2][1] for entry in entries} == {"kv260"}


def test_content(bundle_tar, xmodel):
    content = Bundle.open(bundle_tar)
    images, labels = small_images()
    assert np.array_equal(content.images, images) and content.images.dtype == np.uint8
    assert isinstance(content.images, np.memmap), "a few images are read at a time"
    assert np.array_equal(content.labels, labels)
    assert content.files["model.xmodel"] == xmodel.read_bytes()
    assert content.files["app.py"] == (application.FOLDER / "app.py").read_bytes()
    meta = content.meta
    assert meta["class_names"] == CLASSES
    assert meta["input"] == {
        "subtract": 128.0, "divide": 128.0, "shape": [12, 12, 1], "fix_point": 7, "value": "image",
    }  # fmt: skip
    assert meta["output"] == {
        "classes": 5, "fix_point": 1, "value": "dense_reshaped_download_0", "final": "softmax",
        "probabilities": True,
    }  # fmt: skip
    assert [part["device"] for part in meta["parts"]] == ["USER", "DPU", "CPU"]
    assert (meta["target"], meta["release"], meta["fingerprint"]) == ("kv260", "3.0", "0x101000056010407")
    assert meta["instructions"] == 0
    assert "virtual board only" in content.files["README.md"].decode()
    sums = dict(line.split("  ")[::-1] for line in content.files["SHA256SUMS"].decode().splitlines())
    others = {name: data for name, data in content.files.items() if name != "SHA256SUMS"}
    assert sums == {name: hashlib.sha256(data).hexdigest() for name, data in others.items()}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": small_images()[0].astype(np.float32)}, "float32"),
        ({"images": small_images()[0][:, :11]}, "11"),
        ({"labels": small_images()[1][:7]}, "7 labels"),
        ({"labels": small_images()[1] + 3}, "outside the 5 classes"),
        ({"class_names": CLASSES[:4]}, "4 class names"),
        (
            {"target": load_targets(extra={"t": {"dpu": KV260.dpu, "release": "2.5"}})["t"]},
            "compile it for this",
        ),
    ],
)
def test_parts_that_do_not_fit(xmodel, tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        build(tmp_path / "x.tar", xmodel, **changes)
    assert not (tmp_path / "x.tar").exists()


@pytest.mark.fault("board", "model with a CPU op that nobody knows", "refused")
def test_an_unknown_op_on_the_cpu_is_refused_by_name(shared, tmp_path):
    with pytest.raises(UserError, match=r"'custom_layer' \(Mylayer\) left to the CPU"):
        build(tmp_path / "x.tar", shared("golden/vendor/zcu102_mnist_3.0.xmodel"))
    assert not (tmp_path / "x.tar").exists()


def test_files_that_are_no_bundles(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        Bundle.open(tmp_path / "none.tar")
    (tmp_path / "text.tar").write_text("hello")
    with pytest.raises(UserError, match="not a bundle"):
        Bundle.open(tmp_path / "text.tar")
    with tarfile.open(tmp_path / "other.tar", "w") as archive:
        entry = tarfile.TarInfo("meta.json")
        entry.size = 2
        archive.addfile(entry, io.BytesIO(b"{}"))
    with pytest.raises(UserError, match="bundle format None"):
        Bundle.open(tmp_path / "other.tar")


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_the_application_gives_the_emulators_answers(bundle_tar, tmp_path, batch):
    from test_ssh import check_results

    options = {"threads": 2, "runs": 1, "warmup": 3, "batch": 5}
    report = run_on_virtual_board(bundle_tar, tmp_path, options, KV260, batch=batch)
    check_results(tmp_path, bundle_tar)
    assert report["images_per_call"] == batch and report["emulated"] is True
    assert report["timing"]["kind"].startswith("emulated")
    assert report["unstable_images"] == []


def run_app(folder, *words):
    command = [sys.executable, str(folder / "app.py"), "--out", str(folder / "out"), "--runs", "1", *words]
    variables = {**environment(KV260), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, env=variables, capture_output=True, text=True)


@pytest.mark.fault("board", "damaged bundle on the board", "refused")
def test_the_application_refuses_a_damaged_bundle(bundle_tar, tmp_path):
    folder = Bundle.open(bundle_tar).unpack(tmp_path / "b")
    data = bytearray((folder / "model.xmodel").read_bytes())
    data[-1] ^= 1
    (folder / "model.xmodel").write_bytes(data)
    status = tmp_path / "status.json"
    done = run_app(folder, "--status", str(status))
    assert done.returncode == 1 and "model.xmodel: checksum differs" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(status.read_text())["state"] == "failed"
    assert not (folder / "out").exists()


@pytest.mark.fault("board", "xmodel of another target on the board", "refused")
def test_the_application_refuses_a_board_with_another_dpu(bundle_tar, tmp_path):
    other = load_targets(extra={"t": {"dpu": "DPUCZDX8G_ISA1_B1600"}})["t"]
    with pytest.raises(UserError, match=r"0x101000056010404.*compiled for 0x101000056010407"):
        run_on_virtual_board(bundle_tar, tmp_path / "out", {"runs": 1}, other)
    assert not (tmp_path / "out").exists()


@pytest.mark.fault("board", "unknown option of the application", "refused")
def test_limit_and_unknown_options(bundle_tar, tmp_path):
    report = run_on_virtual_board(bundle_tar, tmp_path, {"limit": 3, "runs": 1}, KV260)
    assert report["images"] == 3
    with pytest.raises(UserError, match="'thread'"):
        run_on_virtual_board(bundle_tar, tmp_path, {"thread": 3}, KV260)
