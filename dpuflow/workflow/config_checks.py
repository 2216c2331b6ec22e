"""Do the entries of a configuration fit each other? What no schema can say, asked whenever it is read."""

import itertools
from collections.abc import Mapping
from typing import Any

from dpuflow.base.errors import UserError
from dpuflow.base.hints import did_you_mean
from dpuflow.base.pixels import complete, problem
from dpuflow.datasets.labels import MAX_LABEL, MAX_PICTURE_LABEL, labels_of
from dpuflow.datasets.locate import form_problem
from dpuflow.datasets.tasks import TASK_OF
from dpuflow.decoding import ANCHORED
from dpuflow.device.targets import configured_target
from dpuflow.training.application_names import APPLICATIONS, WITH_ALPHA

NEEDS_CODE = ("isa_simulator", "ssh")
"""Kinds of runner that execute machine code, which all compilers but `reference` write."""


def problems(config: Mapping[str, Any]) -> list[str]:
    """Messages, each with its key, about entries and runs that cannot work."""
    messages = [*_datasets(config), *_models(config), *_targets(config), *_runners(config)]
    return messages or list(dict.fromkeys(_runs(config)))


def _datasets(config):
    for name, entry in config["datasets"].items():
        kind = entry["source"]["kind"]
        problem = form_problem(entry["source"], "test" in entry) if kind in ("files", "pictures") else None
        if problem:
            yield f"datasets.{name}.source: {problem}"
        for key in ("image", "class_names"):
            if kind == "synthetic" and key in entry:
                yield f"datasets.{name}.{key}: kind synthetic draws 28x28 letters A to Y; leave it out"
        yield from _pictures(f"datasets.{name}", kind, entry)
        yield from _annotations(f"datasets.{name}", kind, entry)
        try:
            labels_of(entry.get("class_names"), MAX_PICTURE_LABEL if kind == "pictures" else MAX_LABEL)
        except UserError as error:
            yield f"datasets.{name}.class_names: {error}"


def _pictures(key, kind, entry):
    if kind == "pictures":
        if "image" not in entry:
            yield f"{key}.image: kind pictures needs it: image: {{height: 96, width: 96, channels: 3}}"
        return
    if "list" in entry["source"]:
        yield f"{key}.source.list: only kind pictures takes a list; found kind {kind}"
    if "test" in entry and kind == "synthetic":
        yield f"{key}.test: not for kind synthetic, which draws images for the test; leave it out"
    if "resize" in entry.get("image", {}):
        yield f"{key}.image.resize: only for kind pictures; the images of kind {kind} have their size"


def _annotations(key, kind, entry):
    """Of a data set: do its task, its annotations and its classes fit each other?"""
    task, notes = entry.get("task", "classification"), entry.get("annotations")
    names = entry.get("class_names")
    if task == "classification":
        if notes:
            wanted = TASK_OF[notes["format"]]
            yield f"{key}: annotations of the format {notes['format']} are for task: {wanted}; add it"
        elif names is not None and len(names) < 2:
            yield f"{key}.class_names: expected two classes at least, found {len(names)}"
        return
    if kind != "pictures" or "list" in entry["source"]:
        found = "a list" if kind == "pictures" else f"kind {kind}"
        yield f"{key}.task: {task} needs pictures in a folder or zip (kind: pictures), found {found}"
    if not notes or TASK_OF[notes["format"]] != task:
        fitting = " or ".join(name for name, meant in TASK_OF.items() if meant == task)
        yield f"{key}.annotations: task {task} needs format: {fitting}"
        return
    if names is not None and None in names:
        yield f"{key}.class_names: null is for labels that never occur; task {task} has no such; leave it out"
    if task == "segmentation":
        values = notes.get("values")
        if names is None or len(names) < 2:
            yield f"{key}.class_names: masks need the name of each pixel value, two at least"
        elif values is not None and len(values) != len(names):
            yield f"{key}.annotations.values: {len(values)} values for {len(names)} class_names"
        if values is not None and (
            len({isinstance(value, list) for value in values}) > 1
            or len({str(value) for value in values}) < len(values)
        ):
            yield f"{key}.annotations.values: expected different numbers, or different [red, green, blue]"
    elif "values" in notes:
        yield f"{key}.annotations.values: only for masks; leave it out"


def _models(config):
    yield from _applications(config)
    for name, model in config["models"].items():
        decode = model.get("decode", {})
        trained = "layers" in model or "starts_from" in model
        if decode.get("anchors") == "auto" and not trained:
            yield (
                f"models.{name}.decode.anchors: auto is for models that are trained here; this one has those "
                "that it was trained with: [[[width, height], ...], ...] for each output"
            )
        start = model.get("starts_from", name)
        key, decode = (name, decode) if decode else (start, config["models"].get(start, {}).get("decode", {}))
        if trained and decode.get("kind", "yolov5") not in ANCHORED and "training" in model:
            yield (
                f"models.{key}.decode.kind: a model that is trained here has {' or '.join(ANCHORED)}; "
                f"found {decode['kind']}" + (f" (models.{name} starts from it)" if key != name else "")
            )


def _applications(config):
    own = ("weights", "alpha", "head", "freeze_until", "fine_tuning")
    for name, entry in config["models"].items():
        key, kind = f"models.{name}", entry.get("application")
        if kind is None:
            yield from (f"{key}.{k}: only beside application; leave it out" for k in own if k in entry)
            continue
        if kind not in APPLICATIONS:
            yield f"{key}.application: Keras has no {kind!r}; {did_you_mean(kind, APPLICATIONS, 3)}"
            continue
        if "weights" not in entry:
            yield (
                f"{key}: application needs the key weights: an H5 file with those of {kind} (nothing is "
                "downloaded), or none for random ones"
            )
        if "alpha" in entry and kind not in WITH_ALPHA:
            yield f"{key}.alpha: {kind} has one width; only {', '.join(WITH_ALPHA)} have a choice"
        if "freeze_until" in entry and entry.get("weights") == "none":
            yield f"{key}.freeze_until: would keep random weights (weights: none); name a file of weights"


def _targets(config):
    for name in config["targets"]:
        try:
            _hardware(config, name)
        except UserError as error:
            yield str(error)


def _hardware(config, name):
    return configured_target(name, config["targets"][name])


def _compiler(config, target):
    return config["targets"][target].get("compiler", "reference")


def _runners(config):
    for name, entry in config["runners"].items():
        if entry["kind"] == "ssh" and "boards" not in entry:
            example = "boards: [{host: root@192.168.1.50}]"
            yield f"runners.{name}: kind ssh needs the key boards; for example {example}"


def _runs(config):
    for index, run in enumerate(config["runs"]):
        yield from _scaling(config, run)
        yield from _colour(config, run)
        for model in _as_list(run["model"]):
            yield from _ready_made(config, index, run, model)
            yield from _other_tasks(config, index, run, model)
        if all("xmodel" in config["models"][model] for model in _as_list(run["model"])):
            continue  # whether they have machine code their files say
        for runner in _as_list(run["runner"]):
            kind = config["runners"][runner]["kind"]
            for target in _as_list(run["target"]):
                if kind in NEEDS_CODE and _compiler(config, target) == "reference":
                    yield (
                        f"runs[{index}]: runner {runner} ({kind}) needs machine code, and target {target} "
                        f"has none: its compiler is reference; {_way_out(config, target)}"
                    )


def _other_tasks(config, index, run, model):
    """Of data sets with boxes or masks: is the model one for them?"""
    entry = config["models"][model]
    for dataset in _as_list(run["dataset"]):
        task = config["datasets"][dataset].get("task", "classification")
        where = f"runs[{index}]: {model} on {dataset} ({task})"
        if task == "classification":
            continue
        start = config["models"].get(entry.get("starts_from"), entry)
        if "application" in start:
            yield f"{where}: application is for classification; needs layers, or a network that is trained"
        elif task == "detection" and not {"decode", "layers"} & (entry.keys() | start.keys()):
            yield (
                f"{where}: nothing says what its outputs mean; give models.{model}.decode (kind, anchors, "
                "...: docs/detection.md)"
            )


def _colour(config, run):
    """Of a run: changes of colour while training, on grey images."""
    for model, dataset in itertools.product(_as_list(run["model"]), _as_list(run["dataset"])):
        augmentation = config["models"][model].get("training", {}).get("augmentation", {})
        grey = config["datasets"][dataset].get("image", {}).get("channels", 1) == 1
        for key in ("saturation", "hue"):
            if grey and augmentation.get(key):
                yield (
                    f"models.{model}.training.augmentation.{key}: the images of {dataset} are grey; leave it "
                    f"out, or say datasets.{dataset}.image.channels: 3"
                )


def _scaling(config, run):
    """Of a run: does what its model subtracts and divides by fit the channels of the images?"""
    for model in _as_list(run["model"]):
        entry = config["models"][model]
        start = config["models"].get(entry.get("starts_from"), entry)
        scaling = entry.get("input", start.get("input", APPLICATIONS.get(start.get("application", ""))))
        for dataset in _as_list(run["dataset"]) if scaling else ():
            channels = config["datasets"][dataset].get("image", {}).get("channels", 1)
            found = problem(complete(scaling), channels)
            if found:
                shown = f" ({scaling})" if isinstance(scaling, str) else ""
                yield (
                    f"models.{model}.input{shown}: {found} (dataset {dataset}); give one number, or one "
                    f"for each channel (datasets.{dataset}.image.channels: {channels})"
                )


def _ready_made(config, index, run, model):
    """What quantizer and compiler a network may be given to that comes quantized, or compiled."""
    origin = next((key for key in ("quantized", "xmodel") if key in config["models"][model]), None)
    if origin is None:
        return
    for name in _as_list(run["quantizer"]):
        tool = config["quantizers"][name]["tool"]
        if tool != "reference":
            yield (
                f"runs[{index}]: model {model} comes {'compiled' if origin == 'xmodel' else origin}, so "
                f"quantizer {name} ({tool}) has nothing to do; name one with tool: reference"
            )
    for name in _as_list(run["target"]):
        if origin == "xmodel" and _compiler(config, name) not in ("reference", "native"):
            yield (
                f"runs[{index}]: model {model} comes compiled, so the compiler {_compiler(config, name)} of "
                f"target {name} has nothing to do; write a target without it"
            )


def _way_out(config, target):
    dpu = _hardware(config, target).dpu
    fitting = [
        name
        for name in config["targets"]
        if _compiler(config, name) == "native" and _hardware(config, name).dpu == dpu
    ]
    native = f"write target: {fitting[0]}" if fitting else f"give targets.{target} compiler: native"
    return f"{native}, or take a runner of kind emulator or virtual_board"


def _as_list(value):
    return value if isinstance(value, list) else [value]
