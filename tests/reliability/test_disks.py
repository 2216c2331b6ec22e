"""A full disk, a file size limit, a folder that cannot be written: a sentence, no half artifact, a resume."""

import ctypes
import errno
import os
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest
from killed_jobs import REPO

from dpuflow.base.files import sha256

pytestmark = [pytest.mark.slow, pytest.mark.rules]

WRITERS = {
    "obtain_dataset": ["resources/tiny/train.csv", "resources/tiny/test.csv"],
    "build_dataset": ["results/tiny/dataset.h5"],
    "train": ["results/tiny/small/keras_trained_model.h5", "results/tiny/small/history.csv"],
    "freeze": [
        *(f"results/tiny/small/tf/tfchkpt.ckpt.{end}" for end in ("meta", "index", "data-00000-of-00001")),
        "results/tiny/small/tf/tf_complete_model.pb",
        *(
            f"results/tiny/small/{name}"
            for name in ("tf/nodes.json", "frozen_graph.pb", "network.h5", "freeze.json")
        ),
    ],
    "import_onnx": [
        f"results/tiny/own_onnx/{name}"
        for name in ("trained_model.onnx", "network.h5", "frozen_graph.pb", "tf/nodes.json")
    ],
    "import_frozen": ["results/tiny/own_pb/frozen_graph.pb", "results/tiny/own_pb/tf/nodes.json"],
    "export_quantized": ["results/tiny/small/ours/z_xir/small.quantized.xmodel"],
    "compile_native": [
        *(f"results/tiny/small/reference/native/small{end}" for end in (".xmodel", ".quantized.xmodel")),
        "results/tiny/small/reference/native/compile.json",
    ],
    "bundle": ["deploy/native/tiny.small.reference.tar"],
    "run_emulator": [
        "results/tiny/small/reference/zcu104/emulator/predictions.csv",
        "results/tiny/small/reference/zcu104/emulator/board_accuracy.json",
    ],
    "report": [
        "results/report/test/accuracy.html",
        "results/report/test/accuracy.md",
        "results/report/test/accuracy.json",
    ],
    "vitis_ai_test_images": ["results/tiny/test_images.npy"],
}
"""A rule of each way of writing (CSV, HDF5, Keras, TensorFlow, protobuf, tar, ...) -> its outputs."""

CAP_DAC_OVERRIDE, PR_CAPBSET_DROP = 1, 24


class Copy:
    """A copy of the undisturbed workflow's artifacts, in which one rule's script runs alone."""

    def __init__(self, folder, undisturbed):
        self.folder, self.undisturbed = folder, undisturbed
        for part in ("resources", "results", "deploy", "logs", "models", "pictures"):
            if undisturbed.path(part).exists():
                shutil.copytree(undisturbed.path(part), folder / part)
        for model in undisturbed.folder.glob("*.onnx"):
            shutil.copy(model, folder)

    def run(self, rule, **options):
        """The result of the rule's script, which the undisturbed run kept with all its values."""
        environment = {k: v for k, v in self.undisturbed.environment.items() if k != "PYTHONPATH"}
        # Python cuts bytecode off at a file size limit, and all that import it afterwards end in a traceback
        environment |= {"PYTHONPATH": str(REPO), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(
            [sys.executable, str(self.undisturbed.scripts / f"{rule}.py")],
            cwd=self.folder, capture_output=True, text=True, env=environment, **options,
        )  # fmt: skip

    @contextmanager
    def without(self, rule):
        """Without the rule's outputs for a while; yields their sizes."""
        paths = WRITERS[rule]
        sizes = [(self.folder / path).stat().st_size for path in paths]
        for path in paths:
            (self.folder / path).unlink()
        try:
            yield sizes
        finally:
            for path in paths:
                shutil.copy(self.undisturbed.path(path), self.folder / path)

    def check_failure(self, rule, result, reason):
        """One sentence, and under the outputs' names nothing or the whole."""
        assert result.returncode == 1, result.stderr
        assert "Traceback" not in result.stderr, result.stderr
        said = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert len(said) == 1 and "cannot be written" in said[0], result.stderr
        assert os.strerror(reason) in said[0]
        assert "run again" in said[0]
        for path in WRITERS[rule]:
            if (self.folder / path).exists():
                assert sha256(self.folder / path) == self.undisturbed.artifacts[path]

    def check_resume(self, rule):
        """Running the same script again finishes, with the same bytes and without remains."""
        result = self.run(rule)
        assert result.returncode == 0, result.stderr
        for path in WRITERS[rule]:
            assert sha256(self.folder / path) == self.undisturbed.artifacts[path]
            assert not list((self.folder / path).parent.glob(".*"))


@pytest.fixture(scope="module")
def disk(undisturbed, tmp_path_factory):
    """A Copy on a tmpfs of its own."""
    folder = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)]
    if os.getuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs (root), which this user or container does not have")
    yield Copy(folder, undisturbed)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def plain(undisturbed, tmp_path_factory):
    """A Copy on the disk where temporary files lie."""
    return Copy(tmp_path_factory.mktemp("plain"), undisturbed)


def fill(folder, leave):
    """A file that takes all space but `leave` bytes."""
    path = folder / "filler"
    with open(path, "wb", buffering=0) as stream:
        block = bytes(1 << 16)
        while block:
            try:
                stream.write(block)
            except OSError:
                block = block[: len(block) // 2]
        stream.truncate(max(0, stream.tell() - leave))
    return path


@pytest.mark.fault("disk", "disk full while rule {id} writes", "message, then resume")
@pytest.mark.parametrize("rule", WRITERS)
def test_a_full_disk(disk, rule):
    with disk.without(rule) as sizes:
        filler = fill(disk.folder, leave=sum(sizes) // 2)
        try:
            result = disk.run(rule)
        finally:
            filler.unlink()
        disk.check_failure(rule, result, errno.ENOSPC)
        disk.check_resume(rule)


@pytest.mark.fault("disk", "read-only file system under rule {id}", "message, then resume")
@pytest.mark.parametrize("rule", ["build_dataset", "export_quantized"])
def test_a_read_only_file_system(disk, rule):
    with disk.without(rule):
        subprocess.run(["mount", "-o", "remount,ro", str(disk.folder)], check=True)
        try:
            result = disk.run(rule)
        finally:
            subprocess.run(["mount", "-o", "remount,rw", str(disk.folder)], check=True)
        disk.check_failure(rule, result, errno.EROFS)
        disk.check_resume(rule)


@pytest.mark.fault("disk", "file size limit (ulimit -f) reached by rule {id}", "message, then resume")
@pytest.mark.parametrize("rule", ["obtain_dataset", "build_dataset", "compile_native", "bundle"])
def test_a_file_size_limit(plain, rule):
    with plain.without(rule) as sizes:
        limit = max(sizes) * 2 // 3
        result = plain.run(rule, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
        plain.check_failure(rule, result, errno.EFBIG)
        plain.check_resume(rule)


def without_override():
    """In the child: root, too, shall need the permission bits."""
    if os.getuid() == 0:
        assert ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0) == 0


@contextmanager
def unwritable(folder):
    folder.chmod(0o555)
    try:
        yield
    finally:
        folder.chmod(0o755)


@pytest.mark.fault("disk", "folder without write permission under rule {id}", "message, then resume")
@pytest.mark.parametrize("rule", ["build_dataset", "bundle", "vitis_ai_test_images"])
def test_a_folder_without_write_permission(plain, rule):
    with plain.without(rule):
        with unwritable((plain.folder / WRITERS[rule][0]).parent):
            result = plain.run(rule, preexec_fn=without_override)
        plain.check_failure(rule, result, errno.EACCES)
        plain.check_resume(rule)


@pytest.mark.fault("disk", "log folder without write permission", "message, then resume")
def test_a_log_that_cannot_be_written(plain):
    (plain.folder / "logs/tiny/build_dataset.log").unlink(missing_ok=True)
    with plain.without("build_dataset"):
        with unwritable(plain.folder / "logs/tiny"):
            result = plain.run("build_dataset", preexec_fn=without_override)
        plain.check_failure("build_dataset", result, errno.EACCES)
        assert "build_dataset.log" in result.stderr
        plain.check_resume("build_dataset")
