"""The configuration: checked as a whole, then asked for entries and runs.

`check` reports every mistake by its key with the nearest valid one; `expand_runs` turns
the run list into single runs; `Settings` answers what a rule's params ask.
"""

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpuflow.base.errors import UserError
from dpuflow.base.hints import no_entry
from dpuflow.base.pixels import complete
from dpuflow.base.schemas import SchemaValidator, explain, load_schema
from dpuflow.datasets.tasks import TASKS
from dpuflow.device.targets import Target, configured_target
from dpuflow.quantizer_search.requests import search_problems
from dpuflow.training.application_names import APPLICATIONS
from dpuflow.vitis_ai import checks as vitis_ai
from dpuflow.workflow.config_checks import problems
from dpuflow.workflow.yaml_texts import read_numbers, wrong_type

COMPONENTS = {
    "dataset": "datasets",
    "model": "models",
    "quantizer": "quantizers",
    "target": "targets",
    "runner": "runners",
}
"""Component of a run -> config section that defines it."""

ORIGINS = (
    *("layers", "application", "keras_h5", "frozen_pb", "saved_model", "onnx"),
    *("quantized", "xmodel", "starts_from"),
)
"""Where a model comes from: trained here, a user's own Keras file, frozen graph, SavedModel, ONNX, quantized
graph or compiled xmodel, another model trained further."""
KERAS_ORIGINS = ("layers", "application", "keras_h5", "starts_from")
"""Those with a Keras model of their own and a stage "keras"; the others enter behind training."""
FLOAT_ORIGINS = tuple(origin for origin in ORIGINS if origin not in ("quantized", "xmodel"))
"""Those with a float network: network.h5, and what is quantized here."""
TRAINED = ("layers", "application", "starts_from")
"""Those with a training of their own."""

MAX_VALUES, MAX_DEPTH = 100_000, 60
"""Of a configuration: a sweep over hundreds of runs has thousands of values."""

DEFAULT_INPUT = {"subtract": 0, "divide": 255}


def check(config: dict[str, Any], schema_path: Path | str) -> None:
    """Raise one UserError that lists every mistake of `config` by its key.

    Numbers that YAML 1.1 reads as texts (1e-3) become numbers in `config` first.
    """
    _check_extent(config)
    schema, registry = load_schema(schema_path)
    validator = SchemaValidator(schema, registry=registry)
    errors = list(validator.iter_errors(config))
    if errors and read_numbers(config, errors):
        errors = list(validator.iter_errors(config))
    errors.sort(key=lambda e: [str(p) for p in e.absolute_path])
    mistyped = {tuple(error.absolute_path) for error in errors if error.validator == "type"}
    messages: list[str] = []
    for error in errors:
        # what else is wrong with a value of the wrong type (its range, its pattern) helps nobody
        if error.validator == "type" or tuple(error.absolute_path) not in mistyped:
            messages.extend(explain(error, wrong_type))
    if not messages:
        messages = _dangling_names(config) or problems(config)
        messages = messages or vitis_ai.problems(config) or search_problems(config)
    if messages:
        raise UserError("config: " + "\n        ".join(dict.fromkeys(messages)))


def _check_extent(config):
    """Refuse what YAML's aliases can make of a small file: a value within itself, or without number."""
    sizes: dict[int, int | None] = {}

    def size(value: Any, depth: int) -> int:
        if not isinstance(value, dict | list):
            return 1
        counted = sizes.get(id(value), 0)
        if depth > MAX_DEPTH or counted is None:  # None: still being counted, so it holds itself
            raise UserError(f"config: values nested more than {MAX_DEPTH} deep, or an alias within itself")
        if not counted:
            sizes[id(value)] = None
            children = value.values() if isinstance(value, dict) else value
            counted = sizes[id(value)] = 1 + sum(size(child, depth + 1) for child in children)
        return counted

    if size(config, 0) > MAX_VALUES:
        raise UserError(
            f"config: more than {MAX_VALUES} values; aliases (*name) multiply what they stand for"
        )


def configuration_name(config: Mapping[str, Any], files: Iterable[Path | str], defaults: Path | str) -> str:
    """What the folder of a configuration's report is called; "" for the default configuration.

    files : those of --configfile; defaults : the file that is always read. The key
    `name` comes first, then the names of the other files without their endings, joined by "+".
    """
    if config.get("name"):
        return str(config["name"])
    usual = Path(defaults).resolve()
    stems = [Path(path).stem for path in files if Path(path).resolve() != usual]
    return "+".join(re.sub(r"[^A-Za-z0-9_.-]", "_", stem) for stem in dict.fromkeys(stems))


def sort_keys(config: dict[str, Any] | list[Any]) -> None:
    """Order the keys of every mapping in `config` by name, in place: their order means nothing."""
    if isinstance(config, dict):
        for key in sorted(config, key=str):
            config[key] = config.pop(key)
    for value in config.values() if isinstance(config, dict) else config:
        if isinstance(value, dict | list):
            sort_keys(value)


def _dangling_names(config):
    """Names that `runs` picks and no section defines."""
    messages = []
    for index, run in enumerate(config["runs"]):
        for component, section in COMPONENTS.items():
            for name in _as_list(run[component]):
                if name not in config[section]:
                    messages.append(f"runs[{index}].{component}: {no_entry(config, section, name)}")
    for name, model in config["models"].items():
        origins = [key for key in ORIGINS if key in model]
        if len(origins) != 1:
            found = " and ".join(origins) or "none of them"
            messages.append(f"models.{name}: needs one of {', '.join(ORIGINS)}; found {found}")
        elif origins[0] in TRAINED and "training" not in model:
            messages.append(f"models.{name}: has {origins[0]}, so it needs the key training, too")
        elif "starts_from" in model:
            messages += _bad_start(name, model["starts_from"], config)
    return messages


def _bad_start(name, start, config):
    """Why a model cannot be trained further from `start`, as a list of at most one message."""
    key = f"models.{name}.starts_from"
    if start not in config["models"]:
        return [f"{key}: {no_entry(config, 'models', start)}"]
    if not {"layers", "application", "keras_h5"} & config["models"][start].keys():
        return [
            f"{key}: {start!r} has no H5 to start from; name a model with layers, application or keras_h5"
        ]
    return []


def _as_list(value):
    return value if isinstance(value, list) else [value]


@dataclass(frozen=True)
class Run:
    """One path through the chain; each field is a wildcard's value."""

    dataset: str
    model: str
    quantizer: str
    target: str
    runner: str

    @property
    def folder(self) -> str:
        """Folder of the run's last artifacts below `results/`."""
        return f"{self.dataset}/{self.model}/{self.quantizer}/{self.target}/{self.runner}"


def expand_runs(config: Mapping[str, Any]) -> list[Run]:
    """The run list with lists multiplied out, in order and without repetition."""
    runs: dict[Run, None] = {}
    for entry in config["runs"]:
        seeds = _as_list(entry.get("seed", None))
        parts = [_as_list(entry[component]) for component in COMPONENTS]
        for dataset, model, quantizer, target, runner in itertools.product(*parts):
            for seed in seeds:
                name = model if seed is None else f"{model}-s{seed}"
                runs[Run(dataset, name, quantizer, target, runner)] = None
    return list(runs)


TRAINED_DECODE = {"kind": "yolov5", "anchors": "auto"}
"""Of a detector with `layers` that says nothing else."""


class Settings:
    """Answers what the rules' params ask of the configuration, by wildcard value."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def dataset(self, name: str) -> dict[str, Any]:
        """Entry of a data set."""
        return self.config["datasets"][name]

    def model(self, name: str) -> dict[str, Any]:
        """Entry of a model; `name` may carry a seed ("signnet-s3")."""
        return self.config["models"][name.partition("-s")[0]]

    def seed(self, model: str) -> int:
        """Training seed of a model's name: its own, else the configuration's."""
        own = model.partition("-s")[2]
        return int(own) if own else self.config.get("seed", 1)

    def input_scaling(self, model: str) -> dict[str, Any]:
        """What a model sees of pixels, as `base.pixels` describes it."""
        entry = self.model(model)
        if "starts_from" in entry and "input" not in entry:
            entry = self.model(entry["starts_from"])
        return complete(entry.get("input") or APPLICATIONS.get(entry.get("application", ""), DEFAULT_INPUT))

    def application(self, model: str) -> dict[str, Any] | None:
        """What `training.applications` asks of a model's entry; None of one that is no application."""
        entry = self.model(model)
        keys = ("application", "weights", "alpha", "head", "freeze_until", "fine_tuning")
        return {key: entry[key] for key in keys if key in entry} if "application" in entry else None

    def decode(self, model: str) -> dict[str, Any]:
        """What a model's maps mean, for data sets with boxes (`decoding.decode`); empty: nothing tells."""
        entry = self.model(model)
        if "decode" not in entry and "starts_from" in entry:
            return self.decode(entry["starts_from"])
        return entry.get("decode") or (dict(TRAINED_DECODE) if "layers" in entry else {})

    def onnx_ends(self, model: str, dataset: str) -> dict[str, Any]:
        """{"input", "output": name of a tensor, names, or None} of an ONNX file.

        "heads": True where it is to end at a detector's raw maps, which `decode` knows and nothing names.
        """
        entry = self.model(model)
        ends = {end: entry.get(f"{end}_node") for end in ("input", "output")}
        boxes = self.dataset(dataset).get("task") == "detection"
        raw = entry.get("decode", {}).get("kind", "none") != "none"
        return ends | ({"heads": True} if boxes and raw and ends["output"] is None else {})

    def given_scaling(self, model: str) -> dict[str, Any] | None:
        """`input_scaling` where the configuration gives one, else None: a file may record its own."""
        return self.input_scaling(model) if "input" in self.model(model) else None

    def answer(self, model: str, dataset: str | None = None) -> str | None:
        """Which output is the class of a picture (`base.outputs.answer_of`); of what it starts from.

        Of a data set with another task none is.
        """
        if dataset is not None and self.dataset(dataset).get("task", TASKS[0]) != TASKS[0]:
            return "none"  # base.outputs.NONE, whose module would cost NumPy at each start
        entry = self.model(model)
        if "starts_from" in entry and "output" not in entry:
            entry = self.model(entry["starts_from"])
        return entry.get("output")

    def start_of(self, model: str) -> str:
        """The model that `model` is trained further from, with the same seed."""
        return self.model(model)["starts_from"] + "".join(model.partition("-s")[1:])

    def target(self, name: str) -> dict[str, Any]:
        """{"hardware": entry for `targets.load_targets`, "on_cpu", "compiler"} of a target."""
        entry = self.config["targets"][name]
        return {
            "hardware": {k: v for k, v in entry.items() if k in ("dpu", "release", "board")},
            "on_cpu": entry.get("on_cpu", "error"),
            "compiler": entry.get("compiler", "reference"),
        }

    def hardware(self, name: str) -> Target:
        """`targets.Target` of a target."""
        return configured_target(name, self.target(name)["hardware"])

    def used_by(self, runs: Iterable[Run]) -> dict[str, Any]:
        """The part of the configuration that these runs depend on."""
        used = {"seed": self.config.get("seed", 1)}
        for component, section in COMPONENTS.items():
            names = sorted({getattr(run, component).partition("-s")[0] for run in runs})
            used[section] = {name: self.config[section][name] for name in names}
        return used

    def seeds(self, runs: Iterable[Run]) -> dict[str, Any]:
        """Every seed that these runs depend on: {"training": by model, "datasets": by data set and use}."""
        training = {run.model: self.seed(run.model) for run in runs if self.is_trained(run.model)}
        datasets = {}
        for name in sorted({run.dataset for run in runs}):
            parts = {
                part: self.dataset(name).get(part, {})
                for part in ("source", "test", "validation", "calibration")
            }
            datasets[name] = {part: entry["seed"] for part, entry in parts.items() if "seed" in entry}
        return {"training": training, "datasets": datasets}

    def is_trained(self, model: str) -> bool:
        """Whether a model is trained here, from the beginning or further."""
        return self.origin(model) in TRAINED

    def origin(self, model: str) -> str:
        """Which of ORIGINS a model has."""
        return next(key for key in ORIGINS if key in self.model(model))

    def has_keras(self, model: str) -> bool:
        """Whether the chain has a Keras model of this model."""
        return self.origin(model) in KERAS_ORIGINS

    def stages(self, model: str) -> tuple[str, ...]:
        """The stages of this model whose accuracy is measured, in order."""
        origin = self.origin(model)
        if origin == "xmodel":
            return ("board",)
        trained = ("keras",) if origin in KERAS_ORIGINS else ("onnx",) if origin == "onnx" else ()
        return (*trained, *(("frozen",) if origin in FLOAT_ORIGINS else ()), "quantized", "board")

    def models_from(self, *origins: str) -> str:
        """Regular expression of the model wildcard for models of these origins."""
        names = [name for name in self.config["models"] if self.origin(name) in origins]
        return f"({'|'.join(names)})(-s[0-9]+)?" if names else "(?!)"

    def datasets_of(self, *kinds: str) -> str:
        """Regular expression of the dataset wildcard for data sets of these kinds of source."""
        entries = self.config["datasets"].items()
        return "|".join(name for name, entry in entries if entry["source"]["kind"] in kinds) or "(?!)"

    def named(self, section: str, key: str, *values: str) -> str:
        """Regular expression of the entries of `section` whose `key` is one of `values`, or of nothing."""
        default = _DEFAULTS.get((section, key))
        names = [name for name, entry in self.config[section].items() if entry.get(key, default) in values]
        return "|".join(names) or "(?!)"


_DEFAULTS = {("targets", "compiler"): "reference"}
