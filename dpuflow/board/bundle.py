"""The bundle: everything a board needs, as one tar that is the same for the same content.

Below deploy/TARGET/: model.xmodel, meta.json, images.npy (uint8, N x H x W x C),
labels.npy (int64), parameters.npz (of the layers on the CPU), the application's files, README.md,
SHA256SUMS. Names are sorted, times and
owners zero, modes fixed, nothing compressed: two builds give the same bytes anywhere.
"""

import hashlib
import io
import json
import shutil
import tarfile
import zipfile
from collections import UserDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dpuflow import __version__
from dpuflow.base.errors import UserError
from dpuflow.base.files import atomic_path
from dpuflow.base.npy import BlockReader, NpyBlocks, Sliced
from dpuflow.base.outputs import NONE
from dpuflow.base.pixels import Scaling, check_scaling
from dpuflow.board import application
from dpuflow.board.parts import describe_output, describe_outputs, describe_parts, require_known
from dpuflow.device.targets import Target
from dpuflow.emulator import Emulator
from dpuflow.keras_models.foreign_model import several_inputs
from dpuflow.xir import Graph
from dpuflow.xir.input_scaling import recorded_scaling

FORMAT = "dpuflow bundle 2"

Content = bytes | NpyBlocks
"""Of a file of the bundle."""

README = """\
# {network} for {target}

Everything that a board needs to classify {count} test images with this network:

    tar xf {target}.tar
    cd deploy/{target}
    sha256sum -c SHA256SUMS
    python3 app.py --query          # what the board is; its fingerprint must be {fingerprint}
    python3 app.py --threads {threads}      # writes results/predictions.csv and results/board.json

The model is compiled for {dpu}, release {release}. {instructions}

| file | holds |
| --- | --- |
| model.xmodel | the network |
| images.npy | test images (uint8 pixels as they come) |
| labels.npy or geometry.npy | their classes; or, where boxes or masks are found, how they were prepared |
| meta.json | class names, input scaling (float input = (pixel - subtract) / divide), fix_points, parts |
| parameters.npz | weights and tables of the layers on the CPU |
| app.py and the other .py | the application; Python 3.6 or later with numpy, xir and vart |
"""


def input_scaling(graph: Graph, source: Path | str, given: Scaling | None = None) -> dict[str, Any]:
    """`given`, else what a compiled graph records, with the graph's gain; UserError without either."""
    recorded = recorded_scaling(graph) or {}
    scaling = {**(given or recorded), **{key: recorded[key] for key in ("gain",) if key in recorded}}
    if not scaling:
        raise UserError(
            f"{source}: the xmodel does not record its input scaling (attributes input_subtract, "
            "input_divide); give it as a parameter {subtract: ..., divide: ...}"
        )
    return scaling


def describe(
    xmodel: Path | str,
    images: Sliced,
    labels: np.ndarray | None,
    class_names: Sequence[str],
    target: Target,
    split: str,
    scaling: Scaling | None = None,
    answer: str | None = None,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(content of meta.json, {key: array} of parameters.npz), after checking that all fits together."""
    graph = Graph.load(xmodel)
    subgraphs = graph.subgraphs("DPU")
    if not subgraphs:
        raise UserError(f"{xmodel}: no DPU subgraph; a board needs a compiled xmodel")
    for subgraph in subgraphs:
        fingerprint = subgraph.attrs["dpu_fingerprint"]
        if fingerprint != target.fingerprint:
            raise UserError(
                f"{xmodel}: compiled for fingerprint {fingerprint:#x}, but target {target.name} has "
                f"{target.fingerprint:#x}; compile it for this target"
            )
    require_known(graph, xmodel)
    emulator = Emulator(graph, use_native=False)  # nothing is run: no kernels to compile
    if len(emulator.inputs) != 1:
        raise UserError(f"{xmodel}: {several_inputs(len(emulator.inputs))}")
    source, output, ends = (
        emulator.input.tensor,
        describe_output(emulator, answer),
        describe_outputs(emulator),
    )
    wanted = [told["value"] for told in ends.values()]
    wanted += [output["value"], output["final"]] if output else []
    parts, parameters = describe_parts(emulator, wanted)
    if images.dtype != np.uint8 or len(images.shape) != 4 or images.shape[1:] != source.shape[1:]:
        raise UserError(
            f"images have shape {images.shape} and type {images.dtype}; the model takes uint8 images of "
            f"shape {source.shape[1:]}"
        )
    scaling = input_scaling(graph, xmodel, scaling)
    check_scaling(scaling, source.shape[-1])
    outputs = output["classes"] if output else len(class_names)
    if outputs != len(class_names):
        raise UserError(f"{xmodel}: {outputs} outputs, but there are {len(class_names)} class names")
    if labels is not None:
        _check_labels(labels, len(images), outputs)
    code = [len(subgraph.attrs.get("mc_code", b"")) for subgraph in subgraphs]
    meta = {
        "format": FORMAT,
        "network": graph.name,
        "model": "model.xmodel",
        "target": target.name,
        "dpu": target.dpu,
        "release": target.release,
        "fingerprint": hex(target.fingerprint),
        "instructions": sum(code) if all(code) else 0,
        "class_names": [str(name) for name in class_names],
        "input": {
            **scaling,
            "shape": list(source.shape[1:]),
            "fix_point": emulator.input_fix_point,
            "value": emulator.input.name,
        },
        **({"output": output} if output else {}),
        "parts": parts,
        "parameters": "parameters.npz",
        "images": {
            "file": "images.npy",
            **({} if labels is None else {"labels": "labels.npy"}),
            "count": len(images),
            "split": split,
        },
        "versions": {"dpuflow": __version__},
    }
    if len(ends) > 1 or not output:
        meta["outputs"] = ends
    return meta, parameters


def _check_labels(labels, images, outputs):
    if len(labels) != images or not images:
        raise UserError(f"{images} images and {len(labels)} labels; both must be there, one label per image")
    if labels.min() < 0 or labels.max() >= outputs:
        raise UserError(f"labels reach from {labels.min()} to {labels.max()}, outside the {outputs} classes")


def build(
    path: Path | str,
    xmodel: Path | str,
    images: Sliced,
    labels: np.ndarray | None,
    class_names: Sequence[str],
    target: Target,
    split: str,
    scaling: Scaling | None = None,
    answer: str | None = None,
    task: Mapping[str, Any] | None = None,
    geometry: np.ndarray | None = None,
) -> None:
    """Write the bundle's tar.

    Parameters
    ----------
    path : the tar to write.
    xmodel : compiled model with one input and at least one DPU subgraph.
    images, labels : uint8 (N, H, W, C) and integers (N,), the split to classify; of the images a few are
        read at a time.
    class_names : names by output.
    target : the Target that the model is compiled for.
    split : name of the split, for the record.
    scaling : of the input (`base.pixels`); default: what the xmodel records.

    answer : which output says the class, as for `base.outputs.answer_of`; all are there.
    task : of a network that finds boxes or masks (there are no labels then): {"name": "detection",
        "decode": settings of `decoding.decode`} or {"name": "segmentation", "output": name}, with "cut"
        where one channel says it all: the value above which a pixel is of class 1.
    geometry : (N, 10) how the images were prepared (`datasets.placement`), for boxes.

    UserError when the parts do not fit each other.
    """
    labels = None if labels is None else np.asarray(labels).astype(np.int64)
    answer = answer if task is None else NONE
    meta, parameters = describe(xmodel, images, labels, class_names, target, split, scaling, answer)
    if task is not None:
        meta["task"] = dict(task)
    if geometry is not None:
        meta["images"]["geometry"] = "geometry.npy"
    files: dict[str, Content] = dict(application.files())
    files["model.xmodel"] = Path(xmodel).read_bytes()
    files["images.npy"] = NpyBlocks(images)
    if labels is not None:
        files["labels.npy"] = _npy(labels)
    if geometry is not None:
        files["geometry.npy"] = _npy(geometry)
    files["parameters.npz"] = _npz(parameters)
    files["meta.json"] = (json.dumps(meta, indent=1, ensure_ascii=False) + "\n").encode()
    files["README.md"] = _readme(meta, target).encode()
    pack(path, target.name, files)


def pack(path: Path | str, target: str, files: Mapping[str, Content]) -> None:
    """Write {name: bytes} with their checksums as the tar for the target called so."""
    files = {name: data for name, data in files.items() if name != "SHA256SUMS"}
    sums = [f"{_sha256(files[name])}  {name}\n" for name in sorted(files)]
    files["SHA256SUMS"] = "".join(sums).encode()
    with atomic_path(path) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(files):
            entry = tarfile.TarInfo(f"deploy/{target}/{name}")
            entry.size = len(files[name])
            entry.mode = 0o755 if name == "app.py" else 0o644
            archive.addfile(entry, io.BufferedReader(BlockReader(_blocks(files[name]))))


def _blocks(content):
    return iter([content] if isinstance(content, bytes) else content)


def _sha256(content):
    digest = hashlib.sha256()
    for block in _blocks(content):
        digest.update(block)
    return digest.hexdigest()


def _npy(array):
    """Bytes of an .npy file, format 1.0, little-endian, C order."""
    stream = io.BytesIO()
    array = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"))
    np.lib.format.write_array(stream, array, version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def _npz(arrays):
    """Bytes of an .npz file: a stored zip with fixed times and owners."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # its time is 1980-01-01
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, _npy(array))
    return stream.getvalue()


def _readme(meta, target):
    if meta["instructions"]:
        words = f"It holds {meta['instructions']} bytes of DPU instructions."
    else:
        words = "It holds no DPU instructions: it runs on dpuflow's virtual board only, not on a real one."
    return README.format(
        network=meta["network"],
        target=meta["target"],
        count=meta["images"]["count"],
        fingerprint=meta["fingerprint"],
        dpu=meta["dpu"],
        release=meta["release"],
        threads=2 * (target.board.cores if target.board else 1),
        instructions=words,
    )


@dataclass(frozen=True)
class Member:
    """A file within a tar that is not compressed."""

    path: Path
    offset: int
    size: int

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """The tar, open where the file begins."""
        with self.path.open("rb") as stream:
            stream.seek(self.offset)
            yield stream


class Members(UserDict[str, Any]):
    """{name: bytes} of the files of a bundle, read when they are asked for."""

    def __getitem__(self, name: str) -> bytes:
        found = self.data[name]
        if not isinstance(found, Member):
            return found
        with found.opened() as stream:
            return stream.read(found.size)


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its parsed meta.json and its files by name."""

    path: Path
    meta: dict[str, Any]
    files: Members

    @classmethod
    def open(cls, path: Path | str) -> "Bundle":
        """Read a bundle; UserError when the file is none."""
        try:
            with tarfile.open(path, "r:") as archive:
                entries = [entry for entry in archive if entry.isfile()]
            places = {Path(e.name).name: Member(Path(path), e.offset_data, e.size) for e in entries}
            files = Members(places)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except (tarfile.TarError, OSError) as error:
            raise UserError(f"{path}: not a bundle ({error}); remove it and run again") from None
        try:
            meta = json.loads(files["meta.json"])
        except (KeyError, ValueError):
            raise UserError(
                f"{path}: not a bundle (no readable meta.json); remove it and run again"
            ) from None
        if meta.get("format") != FORMAT:
            raise UserError(
                f"{path}: bundle format {meta.get('format')!r}, expected {FORMAT!r}; build it again"
            )
        return cls(Path(path), meta, files)

    @property
    def images(self) -> np.ndarray:
        """uint8 (N, H, W, C); mapped, not read."""
        member = self.files.data["images.npy"]
        with member.opened() as stream:
            np.lib.format.read_magic(stream)
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
            return np.memmap(self.path, dtype, "r", stream.tell(), shape)

    @property
    def labels(self) -> np.ndarray:
        """int64 (N,); none where the class of an image is not asked."""
        if "labels.npy" not in self.files.data:
            return np.zeros(0, np.int64)
        return np.load(io.BytesIO(self.files["labels.npy"]), allow_pickle=False)

    @property
    def graph(self) -> Graph:
        """The model as dpuflow.xir.Graph."""
        return Graph.from_bytes(self.files["model.xmodel"], f"{self.path}: model.xmodel")

    def unpack(self, folder: Path) -> Path:
        """Write the files into a new folder and return it."""
        folder.mkdir(parents=True)
        with tarfile.open(self.path, "r:") as archive:
            for entry in archive:
                source = archive.extractfile(entry) if entry.isfile() else None
                if source is not None:
                    with source, (folder / Path(entry.name).name).open("wb") as target:
                        shutil.copyfileobj(source, target, 1 << 20)
        return folder
