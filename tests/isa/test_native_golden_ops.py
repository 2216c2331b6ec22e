"""Machine code for each golden op case, against the vendor's CPU reference."""

import json
import re
from collections import Counter

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.device.dpuczdx8g import is_exact_add, stored_bias
from dpuflow.dpuczdx8g.isa.program import read_programs
from dpuflow.dpuczdx8g.isa.simulator import Simulator
from dpuflow.dpuczdx8g.native.compile import compile_graph
from dpuflow.xir import Graph

SIZES = (0x101000056010407, 0x101000056010404, 0x101000056010200)


def add_fixed(graph, name, type_, fix_point, inputs=None, **attrs):
    op = graph.add_op(name, type_, inputs, attrs)
    op.tensor.attrs["fix_point"] = fix_point
    return name


def add_constant(graph, name, array, fix_point):
    attrs = {"shape": list(array.shape), "data_type": "XINT8", "data": array.tobytes()}
    return add_fixed(graph, name, "const-fix", fix_point, **attrs)


def one_op_graph(case, arrays, fingerprint):
    """A compiled graph with one DPU op; returns (graph, inputs, expected output)."""
    number, fix = case["id"], case["fix_point"]
    names = ["input_0", "input_1"] if case["op"] == "eltwise-fix" else ["input"]
    fix_inputs = fix["input"] if case["op"] == "eltwise-fix" else [fix["input"]]
    inputs = [arrays[f"{number}_{name}"] for name in names]
    graph = Graph("one op")
    for name, array, fix_point in zip(names, inputs, fix_inputs, strict=True):
        add_fixed(graph, name, "data-fix", fix_point, shape=[1, *array.shape[1:]], data_type="XINT8")
    user = [op.name for op in graph.ops]
    uploads = [
        add_fixed(graph, f"{name}_up", "upload", fix_point, {"input": name})
        for name, fix_point in zip(names, fix_inputs, strict=True)
    ]
    arguments = {"input": uploads}
    for kind in ("weights", "bias"):
        if fix.get(kind) is not None:
            array = arrays[f"{number}_{kind}"]
            if kind == "bias":
                array = stored_bias(array, fix["input"] + fix["weights"] - fix["bias"])
            arguments[kind] = [add_constant(graph, kind, array, fix[kind])]
    keys = ("kernel", "stride", "dilation", "pad", "nonlinear", "type")
    attrs = {key: case[key] for key in keys if key in case}
    add_fixed(graph, "op", case["op"], fix["output"], arguments, **attrs)
    add_fixed(graph, "out", "download", fix["output"], {"input": "op"})
    for op in graph.ops:
        op.attrs["device"] = "USER" if op.name in user else "DPU"
    for device, members in (("USER", user), ("DPU", [op.name for op in graph.ops if op.name not in user])):
        child = graph.root.add_child(f"subgraph_{device}", members)
        child.attrs["device"] = device
    child.attrs["dpu_fingerprint"] = fingerprint
    return graph, inputs, arrays[f"{number}_output"]


def guard_bits_matter(case):
    """The add instruction keeps 2 bits below the coarser input, the reference 7
    (docs/reference/instruction-set.md)."""
    fix = case["fix_point"]
    return case["op"] == "eltwise-fix" and not is_exact_add(fix["input"], fix["output"])


@pytest.fixture(scope="module")
def golden(shared):
    cases = json.loads(shared("golden/ops.json").read_text())
    return cases, np.load(shared("golden/ops.npz"))


@pytest.mark.parametrize("part", range(3))
def test_golden_ops(golden, part):
    cases, arrays = golden
    outcome, wrong = Counter(), []
    for case in cases[part::3]:
        graph, inputs, expected = one_op_graph(case, arrays, SIZES[case["id"] % 3])
        try:
            compile_graph(graph)
        except UserError as error:
            assert re.search(r"shift|dilation|fix_point|kernel", str(error)), error
            outcome["refused"] += 1
            continue
        if guard_bits_matter(case):
            outcome["coarser add"] += 1
            continue
        (program,) = read_programs(graph)
        (output,) = Simulator(program).run(inputs)
        outcome["equal"] += 1
        if not np.array_equal(output, expected):
            wrong.append(case)
    assert wrong == []
    assert outcome["equal"] >= 190 and outcome["refused"] == 0
