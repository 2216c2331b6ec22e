"""Edit scripts: how a valid file becomes a malformed one, in the terms of its format.

An edit is (action, where, value): `where` in [0, 1) picks the place among all places of the file,
so that a script means something for every file, and shrinks well. `apply(name, data, edits)` is a
pure function; Hypothesis draws the scripts in CI, `mutate_randomly` for the coverage-guided runs.
"""

import gzip
import io
import struct
import zipfile
import zlib
from contextlib import suppress

from fuzz_hdf5 import edit_hdf5
from fuzz_values import NUMBERS, TEXTS

ACTIONS = 12


def apply(name, data, edits):
    """The file `data` of target `name` after `edits`."""
    structured = STRUCTURED.get(name)
    raw = [edit for edit in edits if edit[0] % 2 or structured is None]
    if structured is not None:
        data = structured(data, [edit for edit in edits if not edit[0] % 2])
    for edit in raw:
        data = edit_bytes(data, *edit)
    return data


def mutate_randomly(name, data, random):
    """One random script applied; the unchanged data when it does not parse."""
    edits = [
        (random.randrange(ACTIONS * 2), random.random(), random.randrange(1 << 16))
        for _ in range(random.randint(1, 4))
    ]
    return apply(name, data, edits)


def edit_bytes(data, action, where, value):
    """One edit that knows nothing of the format."""
    at = int(where * len(data))
    number = NUMBERS[value % len(NUMBERS)]
    action = action // 2 % 9
    if action == 0:
        return data[:at]
    if action == 1:
        return data[:at] + bytes([(data[at] if at < len(data) else 0) ^ 1 << value % 8]) + data[at + 1 :]
    if action == 2:
        return data[:at] + bytes([value % 256]) + data[at + 1 :]
    if action == 3:
        return data[:at] + data[at + 1 + value % 64 :]
    if action == 4:
        return data[:at] + TEXTS[value % len(TEXTS)] + data[at:]
    if action == 5:  # a piece again
        return data[:at] + data[at : at + 1 + value % 200] * (2 + value % 3) + data[at + 1 + value % 200 :]
    if action == 6:  # a length or count of 4 bytes
        return data[:at] + struct.pack("<I", number & 0xFFFFFFFF) + data[at + 4 :]
    if action == 7:  # two pieces change places
        other = (at + value) % (len(data) or 1)
        low, high = sorted((at, other))
        return (
            data[:low] + data[high : high + 8] + data[low + 8 : high] + data[low : low + 8] + data[high + 8 :]
        )
    return data[:at] + struct.pack(">I", number & 0xFFFFFFFF) + data[at + 4 :]


# -- text: fields ---------------------------------------------------------------------------


def edit_fields(separators):
    """Edits of whole fields of a text: replaced, dropped, doubled, moved."""

    def edit(data, edits):
        for action, where, value in edits:
            pieces, start = [], 0
            for i, byte in enumerate(data):
                if byte in separators:
                    pieces += [data[start:i], data[i : i + 1]]
                    start = i + 1
            pieces.append(data[start:])
            at = int(where * len(pieces))
            kind = action // 2 % 5
            if kind == 0:
                pieces[at] = TEXTS[value % len(TEXTS)]
            elif kind == 1:
                pieces[at] = b"%d" % NUMBERS[value % len(NUMBERS)]
            elif kind == 2:
                del pieces[at : at + 1 + value % 4]
            elif kind == 3:
                pieces[at:at] = pieces[at : at + 1 + value % 4]
            else:
                other = value % len(pieces)
                pieces[at], pieces[other] = pieces[other], pieces[at]
            data = b"".join(pieces)
        return data

    return edit


# -- containers: what is inside changes, the container stays whole ---------------------------------


def edit_gz(data, edits):
    try:
        inside = gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        return data
    for edit in edits:
        inside = edit_bytes(inside, edit[0] // 2, *edit[1:])
    return gzip.compress(inside, mtime=0)


def edit_zip(data, edits):
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as bundle:
            members = [[info.filename, bundle.read(info), info.compress_type] for info in bundle.infolist()]
    except Exception:
        return data
    names = ("../../x/train.csv", "/train.csv", "a/" * 40 + "train.csv", "test.csv", "train.csv.gz", "x", "")
    for action, where, value in edits:
        if not members:
            break
        member = members[int(where * len(members))]
        kind = action // 2 % 4
        if kind == 0:
            member[0] = names[value % len(names)]
        elif kind == 1:
            member[1] = edit_bytes(member[1], value, (value % 97) / 97, value // 3)
        elif kind == 2:
            members.remove(member)
        else:
            members.append(list(member))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as bundle:
        for name, inside, method in members:
            bundle.writestr(zipfile.ZipInfo(name), inside, method)
    return stream.getvalue()


def edit_png(data, edits):
    """Header fields and chunks of a PNG with checksums that fit again."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    chunks, at = [], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunks.append([data[at + 4 : at + 8], data[at + 8 : at + 8 + length]])
        at += 12 + length
    for action, where, value in edits:
        if not chunks:
            break
        chunk = chunks[int(where * len(chunks))]
        kind = action // 2 % 6
        if kind == 0 and len(chunks[0][1]) == 13:
            fields = list(struct.unpack(">IIBBBBB", chunks[0][1]))
            place = value % 7
            number = NUMBERS[value // 7 % len(NUMBERS)]
            fields[place] = number & 0xFFFFFFFF if place < 2 else number & 0xFF
            chunks[0][1] = struct.pack(">IIBBBBB", *fields)
        elif kind == 1:
            chunk[1] = edit_bytes(chunk[1], value, (value % 89) / 89, value // 3)
        elif kind == 2:
            chunks.remove(chunk)
        elif kind == 3:
            chunks.append(list(chunk))
        elif kind == 4:
            chunk[0] = (b"IDAT", b"PLTE", b"tRNS", b"eXIf", b"iCCP", b"acTL", b"fdAT", b"IHDR", b"zTXt")[
                value % 9
            ]
        else:  # other pixels, well compressed
            chunk[0], chunk[1] = b"IDAT", zlib.compress(bytes([value % 6]) * (value * 8))
    body = b"".join(
        struct.pack(">I", len(inside)) + kind + inside + struct.pack(">I", zlib.crc32(kind + inside))
        for kind, inside in chunks
    )
    return data[:8] + body


# -- protobuf: any field of any message ------------------------------------------------------------


def edit_message(new, data, edits):
    """Edits of the fields of a protobuf message; `data` as it is when it does not parse."""
    message = new()
    try:
        message.ParseFromString(data)
    except Exception:
        return data
    for action, where, value in edits:
        places = list(_places(message))
        if not places:
            break
        with suppress(ValueError, TypeError, OverflowError):
            _edit_field(*places[int(where * len(places))], action // 2, value, message)
    return message.SerializeToString(deterministic=True)


def _places(message):
    """(message, field) of every field set in the tree, and of one that is not set per message."""
    for field, content in message.ListFields():
        yield message, field
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type is not None:
                for key in sorted(content):
                    yield from _places(content[key])
        else:
            for child in content if hasattr(content, "append") or hasattr(content, "add") else [content]:
                yield from _places(child)


def _edit_field(message, field, action, value, root):
    content = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        _edit_map(content, action, value)
    elif hasattr(content, "append") or hasattr(content, "add"):
        _edit_list(field, content, action, value, root)
    elif action % 3 == 0 or field.message_type is not None:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _scalar(field, content, value, root))


def _edit_map(content, action, value):
    keys = sorted(content)
    key, other = keys[value % len(keys)], keys[value // 7 % len(keys)]
    if action % 3 == 0:
        del content[key]
    elif not hasattr(content[key], "CopyFrom"):
        content[key] = content[other]
    elif action % 3 == 1:
        content[key].CopyFrom(content[other])
    else:
        content[f"{key}x"].CopyFrom(content[key])


def _edit_list(field, content, action, value, root):
    at, other = value % len(content), value // 7 % len(content)
    kind = action % 5
    if kind == 0:
        del content[at]
    elif kind == 1:
        content.extend([content[at]] * (1 + value // 11 % 3))
    elif kind == 2:
        del content[at:]
    elif field.message_type is not None:
        copied = type(content[at])()
        copied.CopyFrom(content[other])
        content[at].CopyFrom(copied)
    else:
        content[at] = _scalar(field, content[at], value // 5, root) if kind == 3 else content[other]


def _scalar(field, content, value, root):
    """Another value for a scalar field: a boundary, a neighbour, or a name from elsewhere in the file."""
    if isinstance(content, str):
        names = sorted(_names(root))
        return names[value % len(names)] if value % 5 else content + "x"
    if isinstance(content, bytes):
        return edit_bytes(content, value, (value % 83) / 83, value // 3)
    if isinstance(content, bool):
        return not content
    if isinstance(content, float):
        return (0.0, -1.0, float("nan"), float("inf"), 1e38, 0.3, 1e-40)[value % 7]
    return content + (1, -1)[value % 2] if value % 3 == 0 else NUMBERS[value % len(NUMBERS)]


def _names(message):
    for field, content in message.ListFields():
        values = content if hasattr(content, "append") or hasattr(content, "add") else [content]
        for item in (
            values if field.message_type is None or not hasattr(content, "keys") else content.values()
        ):
            if isinstance(item, str):
                yield item
            elif hasattr(item, "ListFields"):
                yield from _names(item)


def edit_graph_def(data, edits):
    from dpuflow.tfgraph.graph_def import new_graph

    return edit_message(type(new_graph()), data, edits)


def edit_xmodel(data, edits):
    from dpuflow.xir import schema

    return edit_message(schema.message("Graph"), data, edits)


def edit_onnx(data, edits):
    import onnx

    return edit_message(onnx.ModelProto, data, edits)


def edit_saved_model(data, edits):
    from tensorflow.core.protobuf import saved_model_pb2

    return edit_message(saved_model_pb2.SavedModel, data, edits)


STRUCTURED = {
    "csv": edit_fields(b",\n"),
    "csv_form": edit_fields(b',;\t\n".'),
    "predictions": edit_fields(b",\n"),
    "record": edit_fields(b'",:\n[]{} '),
    "listing": edit_fields(b" =\n/"),
    "config": edit_fields(b" \n:{},"),
    "gz": edit_gz,
    "zip": edit_zip,
    "graph_def": edit_graph_def,
    "xmodel": edit_xmodel,
    "machine_code": edit_xmodel,
    "quantized": edit_hdf5,
    "dataset": edit_hdf5,
    "picture": edit_png,
    "onnx": edit_onnx,
    "qdq": edit_onnx,
    "quantized_xmodel": edit_xmodel,
    "foreign_xmodel": edit_xmodel,
    "saved_model": edit_saved_model,
    "keras_h5": edit_hdf5,
    "keras3": edit_zip,
    "pictures_zip": edit_zip,
    "list": edit_fields(b",\n/."),
    "voc": edit_fields(b"<>/\n"),
    "coco": edit_fields(b'",:\n[]{} '),
    "yolo": edit_fields(b" \n"),
}
"""Target -> structure-aware edits; the others take those of bytes only."""
