"""A sweep over pictures and ONNX models, and the workflow that submits it to Slurm."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml
from onnx_models import Model
from PIL import Image

SCALING = {"subtract": 128, "divide": 128}
SWEEP = {
    "datasets": {
        "tiny": {
            "source": {"kind": "pictures", "folder": "pictures"},
            "image": {"height": 16, "width": 16, "channels": 3},
            "validation": {"fraction": 0.2, "take": "random", "seed": 1},
            "calibration": {"images": 24, "seed": 1},
        }
    },
    "models": {
        "small": {
            "input": SCALING,
            "layers": [
                {"conv": {"filters": 8, "activation": "relu"}},
                {"max_pool": 4},
                "flatten",
            ],
            "training": {"optimizer": "adam", "learning_rate": 0.01, "batch_size": 32, "epochs": 1},
        },
        "plain_onnx": {"onnx": "plain.onnx", "input": SCALING},
        "branched_onnx": {"onnx": "branched.onnx", "input": SCALING},
    },
    "quantizers": {
        "plain": {"tool": "reference", "method": "non_overflow"},
        "searched": {"tool": "reference", "method": "min_diffs"},
        "corrected": {"tool": "reference", "fast_finetune": False, "bias_correction": True},
        "as_vendor": {"tool": "reference", "compat": "vai_q"},
    },
    "targets": {"own_board": {"board": "kv260"}},
}
PLACES = {
    "dataset": "tiny",
    "target": ["kv260", "zcu102", "zcu104", "ultra96v2", "own_board"],
    "runner": "emulator",
}
TRAINED_RUNS = PLACES | {"model": "small", "seed": [1, 2], "quantizer": "plain"}
ONNX_RUNS = PLACES | {
    "model": ["plain_onnx", "branched_onnx"],
    "quantizer": ["searched", "corrected", "as_vendor"],
}


def write_pictures(folder):
    """Noise that is brighter from class to class: 64 for training and 16 for the test of each of three."""
    random = np.random.default_rng(3)
    for part, count in (("train", 64), ("test", 16)):
        for label in range(3):
            place = folder / part / f"class{label}"
            place.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 128, (16, 16, 3)) + 60 * label
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{number:03}.png")


def write_branched(path):
    """Two branches behind one convolution, depthwise and pointwise, that are added."""
    model = Model((3, 16, 16))
    model.conv(3, 8, strides=[2, 2])
    stem = model.node("Relu")
    depthwise = model.conv(8, 8, source=stem, groups=8)
    pointwise = model.conv(8, 8, kernel=1, source=stem)
    model.node("Add", [depthwise, pointwise])
    model.node("Relu")
    model.node("GlobalAveragePool")
    model.node("Flatten")
    model.node("Gemm", [model.last, model.numbers(3, 8), model.numbers(3)], transB=1)
    model.write(path)


class SweepOnSlurm:
    """The workflow in `folder`; `start` submits a sweep of these runs through profiles/slurm."""

    def __init__(self, folder, environment, plugins):
        self.folder = Path(folder)
        self.environment = environment | {
            "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
            "PYTHONPATH": str(plugins),
            "NO_COLOR": "1",
        }
        self.environment.pop("MAKEFLAGS", None)

    def command(self, *arguments):
        quick = ["--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "20"]
        return [sys.executable, "-m", "snakemake", *arguments, "--workflow-profile", "profiles/slurm", *quick]

    def start(self, runs, log):
        """The running Snakemake process; what it prints goes to the file `log` in the folder."""
        (self.folder / "sweep.yaml").write_text(yaml.safe_dump(SWEEP | {"runs": runs}))
        with open(self.folder / log, "w", encoding="utf-8") as stream:
            return subprocess.Popen(
                self.command("sweep", "--configfile", "sweep.yaml"),
                cwd=self.folder,
                env=self.environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def call(self, *arguments):
        done = subprocess.run(
            self.command(*arguments, "--configfile", "sweep.yaml"),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def finish(self, process, log, seconds=1800):
        """Wait for the end, which has to be a good one; the output."""
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            status = f"none after {seconds} s"
        output = (self.folder / log).read_text()
        assert status == 0, f"status {status}\n{output[-6000:]}"
        return output

    def times(self, pattern="results/tiny/**/*"):
        """{path: modification time in ns} of the results."""
        files = (path for path in self.folder.glob(pattern) if path.is_file())
        return {str(path.relative_to(self.folder)): path.stat().st_mtime_ns for path in files}
