"""A configuration in which every rule that can run here runs, on tiny data; and the rules that there are."""

import copy
import os
import re
import sys
from pathlib import Path

import numpy as np
from onnx_models import small_classifier
from PIL import Image
from saved_models import small_saved_model
from workflow_copy import TINY, Workflow

REPO = Path(__file__).resolve().parents[2]
KILLER = Path(__file__).with_name("killer")
STAND_IN = REPO / "tests/vitis_ai/stand_in"
COLLECTING = {"all", "bundles", "sweep", "predict", "quantizer_search", "diagnose"}
"""Rules without a job of their own."""

MODEL = "results/tiny/small"
TARGETS = [
    "all",
    "sweep",
    "predict",
    "quantizer_search",
    "diagnose",
    "rulegraph",
    "dag_svg",
    "results/photos/dataset.h5",
    "results/tiny/own_h5/keras_trained_model.h5",
    "results/tiny/own_pb/frozen_graph.pb",
    "results/tiny/own_saved/frozen_graph.pb",
    "results/tiny/own_onnx/onnx_accuracy.json",
    "results/tiny/own_quantized/reference/quantization.json",
    "results/tiny/own_xmodel/reference/zcu104/own_xmodel.xmodel",
    "results/tiny/further/keras_trained_model.h5",
    f"{MODEL}/ours/z_xir/compile.json",
    f"{MODEL}/tf1/quantization.json",
    f"{MODEL}/tf1/quantized_accuracy.json",
    f"{MODEL}/tf2/quantization.json",
    f"{MODEL}/tf2/quantized_accuracy.json",
    f"{MODEL}/tf1/z_tf1/compile.json",
    f"{MODEL}/tf2/z_tf2/compile.json",
]


def rules():
    """Names of all rules with a job, as the sources list them."""
    names = []
    for path in sorted((REPO / "rules").glob("*.smk")):
        names += re.findall(r"^rule (\w+):", path.read_text(), re.MULTILINE)
    return [name for name in names if name not in COLLECTING]


def configuration(server=None):
    """The configuration; with a `ssh_server.Server`, the runner ssh is in it, too."""
    config = copy.deepcopy(TINY)
    model = config["models"]["small"]
    config["datasets"]["photos"] = {
        "source": {"kind": "pictures", "folder": "photos"},
        "image": {"height": 8, "width": 8, "channels": 3},
        "test": {"fraction": 0.5},
    }
    config["models"] |= {
        "own_h5": {"keras_h5": f"{MODEL}/keras_trained_model.h5", "input": model["input"]},
        "own_pb": {"frozen_pb": f"{MODEL}/frozen_graph.pb", "input": model["input"]},
        "own_quantized": {"quantized": f"{MODEL}/reference/zcu104/small.quantized.xmodel"},
        "own_xmodel": {"xmodel": f"{MODEL}/reference/zcu104/small.xmodel"},
        "own_saved": {"saved_model": "own/saved", "input": model["input"]},
        "own_onnx": {"onnx": "own.onnx", "input": model["input"]},
        "further": {"starts_from": "small", "qat": True, "training": model["training"] | {"epochs": 1}},
    }
    config["quantizers"] = {
        "reference": {"tool": "reference"},
        "ours": {"tool": "reference", "compat": "vai_q", "diagnosis": False},
        "tf1": {"tool": "vai_q_tensorflow", "release": "3.0", "options": {"method": 1}},
        "tf2": {"tool": "vai_q_tensorflow2", "release": "2.5"},
    }
    dpu = {"dpu": "DPUCZDX8G_ISA1_B4096"}
    config["targets"] = {
        "zcu104": {"board": "zcu104"},
        "native": dpu | {"release": "3.0", "compiler": "native"},
        "z_tf1": {"board": "zcu102", "release": "3.0", "compiler": "vai_c_tensorflow"},
        "z_tf2": dpu | {"release": "2.5", "compiler": "vai_c_tensorflow2"},
        "z_xir": dpu | {"release": "3.5", "compiler": "vai_c_xir"},
    }
    config["runners"] = {
        "emulator": {"kind": "emulator"},
        "isa_simulator": {"kind": "isa_simulator"},
        "virtual_board": {"kind": "virtual_board"},
    }
    config["gates"] = [{"from_stage": "quantized", "to_stage": "board", "max_drop": 50}]
    run = {"dataset": "tiny", "model": "small", "quantizer": "reference"}
    config["runs"] = [run | {"target": "zcu104", "runner": "emulator"}]
    config["runs"].append(run | {"target": "native", "runner": ["isa_simulator", "virtual_board"]})
    if server:
        options = {"runs": 1, "warmup": 0}
        config["runners"]["lab"] = {"kind": "ssh", "boards": [server.entry()], "options": options}
        config["runs"].append(run | {"target": "native", "runner": "lab"})
    config["predict"] = {"images": "pictures"}
    config["quantizer_search"] = {"grid": {"bias_correction": [True, False]}}
    return config


class EveryRule(Workflow):
    """The workflow with the stand-in container runtime and the pictures that `predict` wants."""

    def __init__(self, folder, config):
        super().__init__(folder, config)
        self.more = {}
        pixels = np.random.default_rng(4).integers(0, 256, (28, 28), dtype=np.uint8)
        small_saved_model(self.path("own/saved"), (28, 28, 1), 25)
        self.path("pictures").mkdir()
        small_classifier(self.path("own.onnx"))
        Image.fromarray(pixels).save(self.path("pictures/a.png"))
        for number in range(12):
            path = self.path(f"photos/{'cat' if number % 2 else 'dog'}/{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.roll(pixels, number, axis=0)).save(path)

    @property
    def environment(self):
        environment = super().environment
        return environment | {
            "PATH": os.pathsep.join([str(STAND_IN), environment["PATH"]]),
            "DPUFLOW_STAND_IN": str(self.folder / "containers"),
            "DPUFLOW_STAND_IN_PYTHON": str(KILLER / "vendor_python"),
            "KILLER_PYTHON": sys.executable,
            **self.more,
        }

    def run(self, *arguments, more=None, **named):
        """`Workflow.run` with variables `more` in the environment."""
        self.more = more or {}
        return super().run(*arguments, "--sdm", "apptainer", **named)


def killing(notes, *rules, does="kill"):
    """Variables that let the killer loose (killer/sitecustomize.py)."""
    variables = {"KILLER_NOTES": str(notes), "KILLER_RULES": " ".join(rules), "KILLER_DOES": does}
    return {"PYTHONPATH": str(KILLER)} | variables
