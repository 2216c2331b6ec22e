"""Small files that claim or unpack to something huge: refused within the worker's memory and time."""

import gzip
import io
import json
import re
import struct
import zipfile
import zlib

import numpy as np
import pytest
from fuzz_mutations import edit_png
from fuzz_seeds import code_seeds, csv_seeds, graph_seeds, picture_seeds, quantized_seeds, xmodel_seeds
from fuzz_targets import TARGETS

HUGE = 1 << 28


def packed(name, data):
    """A zip with this member for train.csv, and a good test.csv."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr(name, data)
        bundle.writestr("test.csv", csv_seeds()[0])
    return stream.getvalue()


def graph(change):
    """The first valid graph after `change(graph, names)`; its output goes to a softmax."""
    from dpuflow.tfgraph.graph_def import parse_graph_def

    parsed = parse_graph_def(graph_seeds()[0], "seed")
    change(parsed)
    return parsed.SerializeToString()


def repeated_tail(parsed):
    """A bias of 2**40 elements that the file describes with one."""
    tensor = next(n for n in parsed.node if n.op == "Const").attr["value"].tensor
    tensor.ClearField("tensor_content")
    tensor.float_val.append(1.0)
    tensor.tensor_shape.dim[0].size = 1 << 40


def doubling(parsed):
    """A constant joined with itself fifty times over."""
    from dpuflow.tfgraph.graph_def import add_constant, add_node

    x, axis = (
        add_constant(parsed, "c", np.ones(4, np.float32)),
        add_constant(parsed, "a", np.array(0, np.int32)),
    )
    for i in range(50):
        x = add_node(parsed, "ConcatV2", f"double{i}", [x, x, axis])
    first_const_to(parsed, x)


def outer_product(parsed):
    """Two vectors that broadcast to a matrix of 2**36 elements."""
    from dpuflow.tfgraph.graph_def import add_constant, add_node

    for name, shape in (("row", (1, 1 << 18)), ("column", (1 << 18, 1))):
        add_constant(parsed, name, np.ones(shape, np.float32))
    first_const_to(parsed, add_node(parsed, "Mul", "product", ["row", "column"]))


def first_const_to(parsed, name):
    """Let the weights of the convolution be the node `name`."""
    next(n for n in parsed.node if n.op == "Conv2D").input[1] = name


def loop(parsed):
    """A node that reads what is made from it."""
    next(n for n in parsed.node if n.op == "Conv2D").input[0] = parsed.node[-1].name


def long_chain(parsed):
    """Twenty thousand nodes in a row: deep, not wide."""
    from dpuflow.tfgraph.graph_def import add_node

    last = parsed.node[-1].name
    for i in range(20_000):
        last = add_node(parsed, "Identity", f"i{i}", [last])


def xmodel(change, data=None):
    from dpuflow.xir import Graph

    loaded = Graph.from_bytes(data or xmodel_seeds()[0])
    change(loaded)
    return loaded.to_bytes()


def big_padding(loaded):
    loaded.op("conv").attrs["pad"] = [2**30, 0, 2**30, 0]


def big_region(loaded):
    attrs = loaded.subgraphs("DPU")[0].attrs
    attrs["reg_id_to_size"] = {**attrs["reg_id_to_size"], "REG_1": 2**31 - 1}


def big_tensor(loaded):
    for name in ("x", "up"):
        loaded.op(name).tensor.shape = [1, 2**15, 2**15, 2]
    loaded.op("x").attrs["shape"] = [1, 2**15, 2**15, 2]
    for name in ("conv", "down", "out"):
        loaded.op(name).tensor.shape = [1, 2**14, 2**15, 3]


def deep_subgraphs(data):
    """A subgraph in a subgraph, fifty thousand times: encoded by hand, inside out."""
    inner = b"\x0a\x01x"
    for _ in range(3000):
        length, value = b"", len(inner)
        while value > 127:
            length, value = length + bytes([value & 127 | 128]), value >> 7
        inner = b"\x52" + length + bytes([value]) + inner
    length, value = b"", len(inner)
    while value > 127:
        length, value = length + bytes([value & 127 | 128]), value >> 7
    return data + b"\x52" + length + bytes([value]) + inner


def hdf5_claim():
    """A weight array of 2**40 bytes, none of them stored."""
    import tempfile
    from pathlib import Path

    import h5py

    from dpuflow.base.hdf5 import seal

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "q.h5"
        path.write_bytes(quantized_seeds()[0])
        with h5py.File(path, "r+") as file:
            group = file["layers/001"]
            del group["weights"]
            made = group.create_dataset("weights", (1 << 20, 1 << 20), np.int8, chunks=(64, 64))
            made.attrs["fix_point"] = 3
        seal(path)
        return path.read_bytes()


def png_claim():
    header = struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 6, 0, 0, 0)
    whole = edit_png(picture_seeds()[0], [])
    length = struct.pack(">I", 13)
    return (
        whole[:8] + length + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + whole[33:]
    )


def npy_claim():
    stream = io.BytesIO()
    np.save(stream, np.zeros((4, 3), np.float32))
    return stream.getvalue().replace(b"(4, 3), }             ", b"(4, 99999999999999), }")


def aliases(one, many):
    """Thirty levels of ten references each: two kilobytes of YAML, 10**30 values for who walks them.

    They stand where the schema follows them: layers within layers.
    """
    lines = [one]
    lines += [f"x{i}: &l{i} " + many(f"*l{i - 1}") for i in range(1, 30)]
    return "\n".join([*lines, "models: {a: {layers: *l29}}"]).encode()


LISTS = aliases("x0: &l0 [1]", lambda inner: f"[{', '.join([inner] * 10)}]")
LAYERS = aliases("x0: &l0 [flatten]", lambda inner: f"[{', '.join([f'residual: {{layers: {inner}}}'] * 10)}]")
MAPPINGS = aliases("x0: &l0 {a: 1}", lambda inner: f"{{{', '.join(f'k{j}: {inner}' for j in range(10))}}}")


def onnx(change):
    """A convolution, and behind it what `change(model)` adds."""
    from onnx_models import Model

    model = Model((2, 6, 6))
    model.conv(2, 3)
    change(model)
    return model.proto().SerializeToString()


def added(m, constant):
    """The greatest value of a constant added to the map."""
    m.node("Add", [m.x, m.node("ReduceMax", [constant], keepdims=0)])


def doubling_onnx(m):
    """A constant joined with itself twenty-four times over."""
    m.x, c = m.last, m.constant(np.ones(1 << 10, np.float32))
    for _ in range(24):
        c = m.node("Concat", [c, c], axis=0)
    added(m, c)


def matrices(m):
    """The outer product of two vectors: 2**30 values."""
    m.x, column = m.last, m.constant(np.ones((1 << 15, 1), np.float32))
    added(m, m.node("MatMul", [column, m.constant(np.ones((1, 1 << 15), np.float32))]))


def padding(m):
    m.node("Pad", [m.last, m.constant(np.array([0, 0, 1 << 16, 0, 0, 0, 0, 0], np.int64))])
    m.node("GlobalAveragePool")


def filled(m):
    m.x = m.last
    added(m, m.node("ConstantOfShape", [m.constant(np.array([1 << 15, 1 << 15], np.int64))]))


def expanded(m):
    m.x, one = m.last, m.constant(np.ones((1, 1), np.float32))
    huge = m.node("Expand", [one, m.constant(np.array([1 << 17, 1 << 17]))])
    added(m, m.node("Pow", [huge, huge]))


def endless(m):
    """A loop that goes round 2**62 times."""
    from onnx import helper

    m.x, value = m.last, helper.make_tensor_value_info
    steps = [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["v", "v"], ["w"])]
    inputs = [value("i", 7, []), value("go", 9, []), value("v", 1, [1])]
    body = helper.make_graph(steps, "body", inputs, [value("on", 9, []), value("w", 1, [1])])
    given = [m.constant(np.array(n)) for n in (1 << 62, True)]
    added(m, m.node("Loop", [*given, m.constant(np.ones(1, np.float32))], body=body))


def saved_functions(depth, calls):
    """A SavedModel whose function f0 calls f1 `calls` times, that f2, ...; at depth 0 it calls itself."""
    from fuzz_models import saved_model_seeds
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel()
    model.ParseFromString(saved_model_seeds()[0])
    graph = model.meta_graphs[0].graph_def
    for number in range(depth + 1):
        function = graph.library.function.add()
        function.signature.name = f"f{number}"
        for call in range(calls if number < depth or not depth else 0):
            function.node_def.add(name=f"n{call}", op=f"f{min(number + 1, depth)}")
    graph.node.add(name="begin", op="f0")
    return model.SerializeToString()


LAUGHS = (
    b'<!DOCTYPE a [<!ENTITY a "ha">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(9))
    + b"]><annotation>&j;</annotation>"
)


def picture_member(name, mode=0o100644):
    """A zip with a picture under a name, with a file's mode."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as bundle:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        bundle.writestr(info, picture_seeds()[0])
    return stream.getvalue()


CASES = [
    ("csv", "line without end", b"label," + b"1" * (1 << 24), "binary file|column"),
    ("csv", "row without end", csv_seeds()[0] + b"1," * (1 << 22), "line 8: found"),
    ("gz", "zeros", gzip.compress(b"\0" * HUGE, mtime=0), "binary file"),
    ("gz", "digits", gzip.compress(csv_seeds()[0] + b"1" * HUGE, mtime=0), "line 8: found 1 fields"),
    ("zip", "zeros", packed("train.csv", b"\0" * HUGE), "binary file"),
    ("zip", "path out of the archive", packed("../../train.csv", b"1"), "train.csv"),
    ("graph_def", "repeated tail", graph(repeated_tail), "more memory than the file"),
    ("graph_def", "doubling", graph(doubling), "more memory than the file"),
    ("graph_def", "outer product", graph(outer_product), "more memory than the file"),
    ("graph_def", "loop", graph(loop), "expected one output|loop"),
    ("xmodel", "padding", xmodel(big_padding), "pad .* exceeds 255"),
    ("xmodel", "tensors", xmodel(big_tensor), "the emulator takes up to|impossible shape"),
    ("xmodel", "deep subgraphs", deep_subgraphs(xmodel_seeds()[0]), "does not parse"),
    ("machine_code", "register size", xmodel(big_region, code_seeds()[0]), "the simulator takes up to"),
    ("quantized", "claimed size", hdf5_claim(), "not stored in full"),
    ("record", "deep JSON", b"[" * 200_000, "nested too deep"),
    ("record", "long number", b'{"images": ' + b"9" * 100_000 + b"}", "digits"),
    ("record", "NaN", json.dumps({"accuracy": float("nan")}).encode(), "NaN is no number"),
    ("outputs", "claimed size", npy_claim(), "not an .npy file"),
    ("picture", "claimed size", png_claim(), "not a whole PNG|pixels"),
    ("onnx", "doubling", onnx(doubling_onnx), "reading it takes more than .* MiB of memory"),
    ("onnx", "matrices", onnx(matrices), "op MatMul"),
    ("onnx", "padding", onnx(padding), "65536 zeros on a side of a map"),
    ("onnx", "filled constant", onnx(filled), "op ConstantOfShape"),
    ("onnx", "expanded constant", onnx(expanded), "op Expand"),
    ("onnx", "loop of constants", onnx(endless), "op Loop"),
    ("saved_model", "functions", saved_functions(20, 2), "written out, are more than 30000 nodes"),
    ("saved_model", "recursion", saved_functions(0, 1), "calls itself"),
    ("voc", "entities", LAUGHS, "a document type or entities"),
    ("voc", "depth", b"<a>" * 100_000, "nested too deep"),
    ("coco", "depth", b"[" * 200_000, "not whole JSON"),
    ("yolo", "one long line", b"0 " * (1 << 22), "line 1"),
    ("list", "out of the folder", b"path,label\n../../../../etc/passwd,p\n", "list.csv"),
    ("pictures_zip", "path out of the archive", picture_member("../../a.png"), "leads out of the archive"),
    ("pictures_zip", "a link", picture_member("a/b.png", 0o120777), "is a link"),
    ("config", "aliases of lists", LISTS, "aliases"),
    ("config", "aliases of layers", LAYERS, "aliases"),
    ("config", "aliases of mappings", MAPPINGS, "aliases"),
    ("config", "an alias of itself", b"models: &m {a: *m}", "an alias within itself"),
    ("config", "a long value", b"runs: " + b"x" * 100_000, "runs: 'xxx"),
]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        pytest.param(name, data, message, id=f"{name}-{what}", marks=pytest.mark.fuzz(TARGETS[name].parser))
        for name, what, data, message in CASES
    ],
)
def test_a_bomb_is_refused(sandbox, name, data, message):
    outcome, said = sandbox(name).feed(data)
    assert outcome == "refused", outcome
    assert re.search(message, said), said
    assert len(said) < 2000, said


@pytest.mark.fuzz("GraphDef")
def test_a_deep_graph_is_read(sandbox):
    assert sandbox("graph_def").feed(graph(long_chain))[0] == "accepted"
