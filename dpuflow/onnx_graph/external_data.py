"""Weights that an ONNX model keeps in files of their own: only in its folder, and only as files there."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from dpuflow.base.errors import UserError

EXTERNAL = 1
"""TensorProto.data_location of a tensor whose values lie elsewhere."""
MARK = b"location"
"""Every model that names such a file holds this key."""


def external_files(path: Path | str) -> list[str]:
    """Files that the model `path` reads its weights from, sorted; [] for a file that is no model.

    Asked when the workflow is planned, so a model that cannot name one is not even parsed.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError:
        return []
    if MARK not in content:
        return []
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(content)
        return sorted({str(_file(path, location)) for _, location, _, _ in _external(model)})
    except (DecodeError, UserError, ValueError):
        return []  # the job that reads it says what is wrong


def load_external_data(model: Any, path: Path | str) -> None:
    """Bring the weights into the model; UserError for a file that is missing, too short or elsewhere."""
    for tensor, location, offset, length in _external(model):
        source = _file(Path(path), location)
        try:
            size = source.stat().st_size
            wanted = size - offset if length is None else length
            with source.open("rb") as stream:
                stream.seek(offset)
                values = stream.read(wanted)
        except OSError as error:
            raise UserError(
                f"{path}: its weights lie in {location!r}, which cannot be read ({error.strerror}); copy "
                "that file beside the model"
            ) from None
        if len(values) != wanted or offset > size:
            raise UserError(
                f"{path}: weights {tensor.name!r} should be {wanted} bytes at {offset} of {location!r}, "
                f"which has {size}; copy that file again"
            )
        tensor.raw_data = values
        del tensor.external_data[:]
        tensor.data_location = 0


def _external(model) -> Iterator[tuple[Any, str, int, int | None]]:
    """(tensor, location, offset, length) of each tensor, of initializers and of constants."""
    for tensor in _tensors(model.graph):
        if tensor.data_location != EXTERNAL:
            continue
        facts = {entry.key: entry.value for entry in tensor.external_data}
        numbers = [facts.get("offset", "0"), facts.get("length", "0")]
        if "location" not in facts or not all(number.isdecimal() for number in numbers):
            raise UserError(f"weights {tensor.name!r}: external data without a location or place")
        yield tensor, facts["location"], int(numbers[0]), int(numbers[1]) if "length" in facts else None


def _tensors(graph):
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _tensors(inner)


def _file(path, location):
    """The file of a location, which must lie in the model's folder after all links are followed."""
    parts = PurePosixPath(location.replace("\\", "/"))
    folder = path.parent.resolve()
    file = path.parent / parts
    if parts.is_absolute() or ".." in parts.parts or not file.resolve().is_relative_to(folder):
        raise UserError(
            f"{path}: names the file {location!r} for its weights, which lies outside the model's folder; "
            "dpuflow reads none there: export the model with its weights inside, or beside it"
        )
    return file
