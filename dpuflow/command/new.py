"""`dpuflow new PICTURES MODEL`: a configuration that works, every guess with the reason beside it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.command.check import checked
from dpuflow.command.models import read_model
from dpuflow.command.scaling import images_to_try, tried_scalings
from dpuflow.datasets.picture_dataset import divided
from dpuflow.datasets.picture_files import prepared
from dpuflow.datasets.picture_layout import Item, by_folders, empty_classes
from dpuflow.datasets.picture_source import open_source
from dpuflow.datasets.splits import DEFAULT_CALIBRATION
from dpuflow.device.targets import Target

MODEL_FILES = (".onnx", ".h5", ".keras", ".pb", ".xmodel")
TRAINED_HERE = (96, 96, 3)
"""Size of the pictures of a network that is trained here."""


SET_ASIDE = {"fraction": 0.2, "seed": 1}
"""The share for the test, of pictures that have none for it."""


@dataclass
class Pictures:
    """The user's pictures: parts by name, classes sorted, and a sample of them."""

    parts: dict[str, list[Item]]
    classes: list[str]
    zipped: bool
    empty: list[str]
    """Folders of classes without pictures."""

    @property
    def count(self) -> int:
        """All of them."""
        return sum(map(len, self.parts.values()))


def look_at(path: Path) -> Pictures:
    """Pictures of a folder or zip; UserError as the workflow's reader, which will divide them."""
    with open_source(path) as source:
        parts, empty = by_folders(source), empty_classes(source)
    classes = sorted({item.label for items in parts.values() for item in items})
    aside = {} if "test" in parts else {"test": SET_ASIDE}
    divided(parts, lambda item: classes.index(item.label), aside, str(path))
    return Pictures(parts, classes, not path.is_dir(), empty)


def model_beside(folder: Path) -> Path | None:
    """The only model file in a folder, None without one; UserError of several."""
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in MODEL_FILES) if folder.is_dir() else []
    if len(files) > 1:
        names = ", ".join(path.name for path in files)
        raise UserError(
            f"{folder}: holds {len(files)} model files ({names}); name one: dpuflow new FOLDER MODEL"
        )
    return files[0] if files else None


def configuration(
    pictures: Path, model_path: Path | None, target: Target, target_name: str, size: tuple[int, int] | None
) -> str:
    """The text of the configuration.

    pictures : folder or zip. model_path : None: a network is trained here. target_name : how the user calls
    the target, a board's name.

    UserError when the pictures or the model cannot be used, or do not belong together.
    """
    found = look_at(pictures)
    if len(found.classes) < 2:
        raise UserError(f"{pictures}: one class only ({found.classes[0]}); expected a folder for each class")
    model = read_model(model_path, size) if model_path else None
    height, width, channels = model.shape if model else (*(size or TRAINED_HERE[:2]), 3)
    lines = [
        "# Written by `dpuflow new`: every guess has its reason beside it, and is yours to change.",
        "# Run it:  snakemake all --configfile THIS_FILE     All keys: config/README.md",
        "",
        "datasets:",
        "  pictures:",
        f"    source: {{kind: pictures, {'zip' if found.zipped else 'folder'}: {_quoted(_shown(pictures))}}}",
        f"    # {found.count} pictures of {len(found.classes)} classes: {_some(found.classes)}",
        f"    image: {{height: {height}, width: {width}, channels: {channels}}}    # {_size_reason(model)}",
        "    # resize: crop takes the middle of each picture; pad keeps all of it between black bars",
        *_split_lines(found),
        "",
        "models:",
        f"  {_model_name(model)}:",
        *_model_lines(model, model_path, pictures, found),
        "",
    ]
    name, target_lines = _target_lines(model, target, target_name)
    run = (
        f"  - {{dataset: pictures, model: {_model_name(model)}, quantizer: reference, target: {name}, "
        "runner: emulator}"
    )
    return "\n".join([*lines, *target_lines, "runs:", run, RUNNER, ""])


RUNNER = (
    "    # runner: emulator answers as the board would, bit by bit; isa_simulator runs the machine code\n"
    "    # (slow); a board of your own: docs/board.md"
)


def _size_reason(model):
    if model is None:
        return "a size that trains in minutes; larger pictures see more"
    return "the file leaves it open: a guess" if model.open else "what the model takes"


def _some(classes, most=6):
    shown = ", ".join(classes[:most])
    return re.sub(r"[\r\n]", " ", shown) + (", ..." if len(classes) > most else "")


def _shown(path):
    """As the user would write it: relative where it lies below the folder he stands in."""
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.resolve().as_posix()


def _quoted(text):
    return f'"{text}"' if re.search(r"[^A-Za-z0-9_./~-]", text) else text


def _split_lines(found):
    parts, lines = found.parts, []
    if "test" not in parts:
        aside = ", ".join(f"{key}: {value}" for key, value in SET_ASIDE.items())
        lines.append(f"    test: {{{aside}}}    # no folder named test: a fifth of each class is set aside")
    count = len(parts.get("calibration", []))
    if count:
        lines.append(
            f"    calibration: {{images: {count}}}    # all of the folder calibration, for the quantizer"
        )
    else:
        left = len(parts.get("train", [])) or int(0.7 * found.count)
        count = max(1, min(DEFAULT_CALIBRATION["images"], left))
        lines.append(
            f"    calibration: {{images: {count}}}    # for the quantizer, not of the test; more is slower"
        )
    return lines


def _model_name(model):
    if model is None:
        return "mobilenet"
    name = re.sub(r"[^A-Za-z0-9_]", "_", Path(model.path).stem).strip("_") or "model"
    return name if name[0].isalnum() else f"m{name}"


def _model_lines(model, path, pictures, found):
    if model is None:
        return [
            "    application: MobileNetV2    # no model file was given: this one is trained on your pictures",
            "    alpha: 0.35                 # a narrow one; 1.0 is more accurate and slower",
            "    weights: none               # from scratch; or a file of weights (docs/adding-a-model.md)",
            "    training: {optimizer: adam, learning_rate: 1.0e-3, batch_size: 32, epochs: 10}",
        ]
    lines = [f"    {model.key}: {_quoted(_shown(Path(path).expanduser()))}"]
    if model.key in ("quantized", "xmodel"):
        if model.scaling is not None:
            return [*lines, "    # how pixels become its input stands in the file"]
        return [*lines, "    input: {subtract: 0, divide: 255}    # a guess: the file does not say"]
    return lines + _scaling_lines(model, pictures, found)


def _scaling_lines(model, pictures, found):
    network = model.network
    output = _answer(model, pictures, found)
    images, labels = _sample(pictures, found, model.shape)
    rows = tried_scalings(network, images, labels, output)
    best = rows[0]
    shown = "; ".join(f"{row['words']} {row['right']}" for row in rows)
    lines = [
        f"    input: {best['words']}    # the best of the usual ones on {len(images)} of your pictures",
        f"    # right answers: {shown}",
    ]
    if len(network.outputs) > 1:
        lines.append(
            f"    output: {_quoted(output)}    # of {len(network.outputs)} the only one with a value a class"
        )
    if best["right"] * len(found.classes) < 2 * len(images) or best["right"] < 0.2 * len(images):
        lines.append(
            "    # WARNING: hardly any is right. Was it trained on these classes, in alphabetical order?"
        )
    return lines


def _answer(model, pictures, found):
    """Name of the output that is the class of a picture."""
    shapes = {name: tuple(layer.shape) for name, layer in model.network.outputs.items()}
    fitting = [name for name, shape in shapes.items() if int(np.prod(shape)) == len(found.classes)]
    if len(fitting) == 1:
        return fitting[0]
    if len(shapes) == 1:
        answers = f"{int(np.prod(model.network.output.shape))} values"
        wanted = "expected a folder for each class that the network knows"
    else:
        answers = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        wanted = (
            "expected one output with a value for each; where the class is none of them, write the "
            "configuration by hand, with output: none (docs/adding-a-model.md)"
        )
    if found.empty:
        wanted += f"; no pictures in {_some(found.empty)}"
    raise UserError(
        f"{model.path}: answers {answers}, {pictures} has {len(found.classes)} classes "
        f"({_some(found.classes)}); {wanted}"
    )


def _sample(pictures, found, shape):
    """(uint8 images, labels): pictures of as many classes as may be, evenly over the names."""
    items = sorted(
        (item for items in found.parts.values() for item in items), key=lambda item: (item.label, item.path)
    )
    chosen = [items[i] for i in np.linspace(0, len(items) - 1, images_to_try(*shape[:2])).astype(int)]
    chosen = list(dict.fromkeys(chosen))
    with open_source(pictures) as source:
        images = [prepared(source.read(item.name), item.name, shape) for item in chosen]
    return np.stack(images).reshape(len(images), *shape), [found.classes.index(item.label) for item in chosen]


def _target_lines(model, target, name):
    """(name of the target, lines of a section `targets`)."""
    if model is not None and model.network is None:
        return name, [f"# target: {name}, its machine code stays as it is in the file", ""]
    leaving: list[Mapping[str, Any]] = [] if model is None else checked(model, target)["on_cpu"]["native"]
    own = f"{name}_native"
    lines = ["targets:", f"  {own}:    # dpuflow's own compiler: machine code, verified on a simulator"]
    lines.append(f"    {'board' if target.board else 'dpu'}: {name}")
    lines.append("    compiler: native")
    if leaving:
        lines.append(f"    on_cpu: warn    # {len(leaving)} layers leave the DPU; `dpuflow check` says why:")
        lines += [f"    #   {entry['layer']} ({entry['op']}): {entry['reason']}" for entry in leaving[:8]]
    else:
        lines.append("    on_cpu: error    # every layer fits the DPU; a change that does not is refused")
    return own, [*lines, ""]
