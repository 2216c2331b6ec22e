"""The whole chain in one process without Snakemake: what `whole_chain.py` compares the workflow with.

    python benchmarks/plain_chain.py CONFIG.yaml FOLDER [--tutorial]

Calls the stages of the only run of CONFIG.yaml one after another, by the same functions that the
rules' scripts run, with their artifacts as files below FOLDER, and prints {stage: seconds} as
JSON. With --tutorial the CSV files are read by numpy.genfromtxt and the network is trained by
`model.fit`, as the tutorial does both; the other stages stay.
"""

import argparse
import importlib.util
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import yaml
from measuring import REPO

from dpuflow.workflow import run_files
from dpuflow.workflow.config import Settings, expand_runs
from dpuflow.workflow.scripting import Values


class Chain:
    """The stages of one run; `seconds` tells what each took."""

    def __init__(self, config, folder):
        self.settings, self.run = Settings(config), expand_runs(config)[0]
        self.folder, self.seconds = Path(folder), {}
        run = self.run
        self.resources = self.folder / "resources" / run.dataset
        self.data = self.folder / "results" / run.dataset / "dataset.h5"
        self.model = self.data.parent / run.model
        self.quantized = self.model / run.quantizer
        self.target = self.quantized / run.target
        self.board = self.target / run.runner

    def stage(self, name, call):
        """Call a stage, note its seconds."""
        start = time.perf_counter()
        call()
        self.seconds[name] = time.perf_counter() - start

    def script(self, name, files_in, files_out, **params):
        """Run `main` of scripts/{name}.py as its rule would, in this process."""
        for path in files_out.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        spec = importlib.util.spec_from_file_location(name, REPO / "scripts" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        job = SimpleNamespace(
            input=Values(**{key: str(path) for key, path in files_in.items()}),
            output=Values(**{key: str(path) for key, path in files_out.items()}),
            params=Values(**params),
            wildcards=Values(**vars(self.run)),
            threads=2,
        )
        self.stage(name, lambda: module.main(job))

    def read(self):
        """CSV -> dataset.h5."""
        entry = self.settings.dataset(self.run.dataset)
        source = {key: value for key, value in entry.items() if key in ("source", "image", "class_names")}
        csv = {part: self.resources / f"{part}.csv" for part in ("train", "test")}
        self.script("obtain_dataset", {}, csv, entry=source)
        rest = {key: value for key, value in entry.items() if key != "source"}
        self.script("build_dataset", csv, {"dataset": self.data}, entry=rest)

    def train(self):
        """dataset.h5 -> keras_trained_model.h5 by our trainer."""
        entry = self.settings.model(self.run.model)
        self.script(
            "train",
            {"dataset": self.data},
            {"model": self.model / "keras_trained_model.h5", "history": self.model / "history.csv"},
            model=self.run.model,
            layers=entry["layers"],
            training=entry["training"],
            input_scaling=self.scaling,
            seed=self.settings.seed(self.run.model),
        )

    @property
    def scaling(self):
        return self.settings.input_scaling(self.run.model)

    def genfromtxt(self):
        """Both CSV files as the tutorial reads them; what later stages read is dataset.h5."""
        for part in ("train", "test"):
            table = np.genfromtxt(self.resources / f"{part}.csv", delimiter=",", skip_header=1)
            table[:, 1:].reshape(-1, 28, 28, 1)

    def fit(self):
        """The network by `model.fit` on float32 NumPy arrays."""
        from dpuflow.base.pixels import scale_pixels
        from dpuflow.datasets.dataset_file import read_dataset
        from dpuflow.keras_models.keras_file import save_model
        from dpuflow.training.model_builder import build_model
        from dpuflow.training.trainer import compile_model, history_csv, seed_everything

        data, entry = read_dataset(self.data), self.settings.model(self.run.model)
        seed_everything(self.settings.seed(self.run.model))
        model = build_model(entry["layers"], data.shape, len(data.class_names), self.run.model)
        compile_model(model, entry["training"])
        parts = [data.subset(name) for name in ("train", "validation")]
        (x, y), validation = ((scale_pixels(images, self.scaling), labels) for images, labels in parts)
        size, epochs = entry["training"]["batch_size"], entry["training"]["epochs"]
        fitted = model.fit(x, y, size, epochs, validation_data=validation, verbose=0).history
        (self.model).mkdir(parents=True, exist_ok=True)
        save_model(model, self.model / "keras_trained_model.h5")
        rows = [{"epoch": i + 1, "loss": loss} for i, loss in enumerate(fitted["loss"])]
        (self.model / "history.csv").write_text(history_csv(rows))

    def freeze(self):
        """keras_trained_model.h5 -> frozen_graph.pb and network.h5, both measured on the test images."""
        keras = {"model": self.model / "keras_trained_model.h5", "dataset": self.data}
        nodes = {"nodes": self.model / "tf" / "nodes.json"}
        frozen = {"graph": self.model / "frozen_graph.pb"}
        self.evaluate("evaluate_keras", keras, self.model / "keras_accuracy.json")
        report = {"report": self.model / "freeze.json"}
        tolerance = {"input_scaling": self.scaling, "tolerance": 1e-5}
        network = {"network": self.model / "network.h5"}
        self.script("freeze", keras, nodes | frozen | network | report, model=self.run.model, **tolerance)
        self.evaluate(
            "evaluate_frozen", keras | nodes | frozen | network, self.model / "frozen_accuracy.json"
        )

    def evaluate(self, script, files, accuracy):
        self.script(script, files, {"accuracy": accuracy}, input_scaling=self.scaling)

    def quantize(self):
        """network.h5 -> INT8 -> xmodel -> emulator."""
        settings = self.settings.config["quantizers"][self.run.quantizer]
        data, nodes = {"dataset": self.data}, {"nodes": self.model / "tf" / "nodes.json"}
        graph = {"graph": self.quantized / "quantize_eval_model.pb"}
        model = {"model": self.quantized / "quantized_model.h5"}
        accuracy = {"quantized": self.quantized / "quantized_accuracy.json"}
        self.script(
            "quantize_reference",
            data | nodes | {"network": self.model / "network.h5"},
            {"eval_graph": graph["graph"], "report": self.quantized / "quantization.json", **model},
            settings=settings,
            input_scaling=self.scaling,
        )
        self.evaluate("evaluate_quantized", data | nodes | graph, accuracy["quantized"])
        xmodel = {"xmodel": self.target / f"{self.run.model}.xmodel"}
        written = {
            "quantized": self.target / f"{self.run.model}.quantized.xmodel",
            "report": self.target / "compile.json",
        }
        hardware = self.settings.target(self.run.target)
        self.script("compile_reference", model, xmodel | written, target=hardware)
        answers = {
            "predictions": self.board / "predictions.csv",
            "accuracy": self.board / "board_accuracy.json",
        }
        self.script("run_emulator", data | xmodel | accuracy, answers)

    def report(self):
        """The page on all of it."""
        entries = run_files.report_entries(self.settings, [self.run])
        for entry in entries:
            entry["files"] = {key: str(self.folder / path) for key, path in entry["files"].items()}
        page = self.folder / "results" / "report"
        outputs = {"html": "accuracy.html", "markdown": "accuracy.md", "data": "accuracy.json"}
        self.script("report", {}, {key: page / name for key, name in outputs.items()}, runs=entries)


def main():
    """Run the chain, print {stage: seconds}."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("config", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tutorial", action="store_true", help="genfromtxt and model.fit")
    options = parser.parse_args()
    chain = Chain(yaml.safe_load(options.config.read_text()), options.folder)
    chain.read()
    if options.tutorial:
        chain.stage("numpy.genfromtxt", chain.genfromtxt)
        chain.stage("model.fit", chain.fit)
    else:
        chain.train()
    chain.freeze()
    chain.quantize()
    chain.report()
    print(json.dumps(chain.seconds))


if __name__ == "__main__":
    sys.exit(main())
