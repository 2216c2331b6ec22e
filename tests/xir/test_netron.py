"""Files of ours, opened with Netron's own code: every node and attribute is there."""

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hand_network import hand_network

from dpuflow.compiler.quantized_graph import quantized_graph
from dpuflow.compiler.reference import lower
from dpuflow.device.targets import get_target

HIDDEN = {"device", "workload"}
"""Attributes that Netron keeps to itself or shows elsewhere."""


@pytest.fixture(scope="module")
def netron(tmp_path_factory):
    """Function: path of a model -> what Netron lists of it."""
    node, package = shutil.which("node"), importlib.util.find_spec("netron")
    if node is None or package is None:
        pytest.skip("needs node (make test-tools) and the Python package netron")
    # modules only by a package.json, which the Python package leaves out
    folder = tmp_path_factory.mktemp("netron")
    for path in Path(package.origin).parent.glob("*.js*"):
        shutil.copy(path, folder)
    (folder / "package.json").write_text('{"type": "module"}')

    def listing(path):
        script = Path(__file__).with_name("netron_list.mjs")
        run = subprocess.run([node, script, folder, path], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)

    return listing


@pytest.mark.parametrize("form", ["compiled", "quantized"])
def test_every_node_and_attribute_is_listed(netron, tmp_path, form):
    network = hand_network()
    graph = lower(network, get_target("zcu104")) if form == "compiled" else quantized_graph(network)
    graph.save(tmp_path / "hand.xmodel")
    listed = netron(tmp_path / "hand.xmodel")
    assert (listed["format"], listed["name"], listed["producer"]) == ("xmodel", "hand", "dpuflow")
    assert listed["inputs"] == ["x"]
    nodes = {node["name"]: node for node in listed["nodes"]}
    seen = set(nodes) | {"x"}
    for op in graph.ops:
        for argument, names in op.inputs.items():
            values = nodes[op.name]["inputs"][argument]
            assert [value["name"] for value in values] == names
            for value, name in zip(values, names, strict=True):
                if value["bytes"] is not None:
                    assert value["bytes"] == len(graph.op(name).attrs["data"])
                    seen.add(name)
    assert seen == {op.name for op in graph.ops}
    for name, node in nodes.items():
        op = graph.op(name)
        assert node["type"] == op.type
        assert node["device"] == op.device
        fused = op.attrs.get("nonlinear", "NONE")
        assert node["chain"] == ([] if fused == "NONE" else [fused.lower()])
        expected = set(op.attrs) - HIDDEN - ({"nonlinear"} if fused != "NONE" else set())
        assert set(node["attributes"]) == expected
        for key in expected & {"kernel", "stride", "pad", "type", "pad_mode", "fix_point", "axis"}:
            assert node["attributes"][key] == op.attrs[key]
        (output,) = node["outputs"]
        dimensions = ",".join(map(str, op.tensor.shape))
        assert output["type"] == f"{op.tensor.data_type.lower()}{op.tensor.bit_width}[{dimensions}]"
        if op.tensor.fix_point is not None:
            assert output["denotation"] == f"{op.tensor.fix_point}. {op.tensor.attrs['round_mode']}"


def test_netron_refuses_what_our_rules_refuse(netron, tmp_path):
    graph = lower(hand_network(), get_target("zcu104"))
    graph.op("conv1").attrs.set("note", {"a": "b"}, "map_string_2_string")
    graph.save(tmp_path / "hand.xmodel", check=False)
    with pytest.raises(AssertionError, match="Unsupported attribute type"):
        netron(tmp_path / "hand.xmodel")
