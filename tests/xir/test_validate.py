"""Each rule of a valid xmodel, broken alone: exactly the problem it makes is reported."""

import pytest
from small_graph import fixed, small_graph

from dpuflow.xir import Graph, opdefs, validate
from dpuflow.xir.describe import describe


def test_the_small_graph_is_valid():
    assert validate.validate(small_graph(), strict=True) == []


@pytest.mark.parametrize("name", ["zcu102_mnist_3.0", "zcu102_mnist_2.5", "voxelnet_quantized_2.0"])
def test_vendor_files_are_valid(shared, name):
    assert validate.validate(Graph.load(shared(f"golden/vendor/{name}.xmodel"))) == []


def rename(graph):
    graph.proto.op_node[5].op_name = "conv"


def read_later(graph):
    graph.op("up").set_input("input", ["down"])


def swap_children(graph):
    children = [type(c)() for c in graph.proto.subg_root.subg_child]
    for copy, child in zip(children, graph.proto.subg_root.subg_child, strict=True):
        copy.CopyFrom(child)
    del graph.proto.subg_root.subg_child[:]
    graph.proto.subg_root.subg_child.extend([children[0], children[2], children[1]])


def second_tensor_name(graph):
    graph.op("down").tensor.proto.tensor_name = "conv"


def custom_op(graph):
    graph.op("down").proto.op_type = "Mylayer"


def custom_op_with_shape(graph):
    custom_op(graph)
    graph.op("down").attrs.set("shape", [1, 3, 6, 9], "int32_vec")
    graph.op("down").attrs.set("data_type", "XINT8", "string")


def add_child_beside_ops(graph):
    graph.proto.subg_root.subg_child[0].subg_child.add(subgraph_name="more", op_name=["x"])


def drop_attr(name, where="conv"):
    def change(graph):
        del graph.op(where).attrs[name]

    return change


def set_attr(where, name, value, kind):
    def change(graph):
        graph.op(where).attrs.set(name, value, kind)

    return change


def tensor_attr(where, name, value, kind):
    def change(graph):
        graph.op(where).tensor.attrs.set(name, value, kind)

    return change


def of_dpu(change):
    return lambda graph: change(graph.subgraphs("DPU")[0])


STRUCTURE = [
    (rename, "two ops are called 'conv'"),
    (lambda g: g.op("conv").set_input("input", ["nothing"]), "'conv' reads 'nothing', which does not exist"),
    (read_later, "'up' reads 'down', which is not defined before it"),
    (lambda g: g.op("out").proto.ClearField("output_tensor"), "'out' has no output tensor"),
    (lambda g: setattr(g.op("out").tensor.proto, "data_type", 7), "unknown data type 7"),
    (lambda g: setattr(g.op("out").tensor.proto, "data_type", 6), "unknown data type 6"),
    (lambda g: setattr(g.op("out").tensor, "shape", (1, 0)), "impossible shape [1, 0]"),
    (lambda g: setattr(g.op("out").tensor, "shape", (2**16, 2**16)), "impossible shape"),
    (lambda g: setattr(g.op("out").tensor, "bit_width", 0), "bit width of 0"),
    (lambda g: g.proto.graph_attr["origin"].SetInParent(), "graph: attribute 'origin' has no value"),
    (lambda g: g.op("conv").proto.op_attr["x"].Clear(), "op 'conv': attribute 'x' has no value"),
    (lambda g: g.op("conv").proto.output_tensor.tensor_attr["x"].Clear(), "tensor 'conv': attribute 'x'"),
    (lambda g: g.proto.subg_root.subg_attr["x"].Clear(), "subgraph 'root': attribute 'x' has no value"),
    (lambda g: g.proto.ClearField("subg_root"), "no subgraph tree"),
    (lambda g: g.proto.subg_root.subg_child.pop(), "op 'out' is in no subgraph"),
    (lambda g: g.proto.subg_root.subg_child[2].op_name.append("conv"), "op 'conv' is in two subgraphs"),
    (lambda g: g.proto.subg_root.subg_child[2].op_name.append("y"), "lists the op 'y', which does not exist"),
    (lambda g: g.root.add_child("none"), "subgraph 'none' is empty"),
    (add_child_beside_ops, "subgraph 'subgraph_x' has both ops and children"),
]

RULES = [
    (drop_attr("stride"), "lacks the attribute 'stride'"),
    (set_attr("conv", "kernel", [2, 3], "int64_vec"), "attribute 'kernel' is int64_vec, XIR reads int32_vec"),
    (set_attr("conv", "kernel", [2, 3, 1], "int32_vec"), "'kernel' has 3 values instead of 2"),
    (set_attr("conv", "nonlinear", "TANH", "string"), "nonlinear 'TANH' is none of"),
    (set_attr("conv", "pad_mode", "ROUND", "string"), "pad_mode 'ROUND' is none of CEIL, FLOOR, SAME, VALID"),
    (set_attr("conv", "group", True, "bool"), "attribute 'group' is bool"),
    (set_attr("conv", "workload", 5, "int64"), "attribute 'workload' is int64, XIR reads uint64"),
    (lambda g: g.op("conv").set_input("filter", ["w"]), "has no argument called 'filter'"),
    (lambda g: g.op("conv").proto.args.add(arg_name="bias", arg_ops=["b"]), "argument 'bias' more than once"),
    (lambda g: g.op("conv").set_input("weights", []), "lacks its argument 'weights'"),
    (lambda g: g.op("conv").set_input("input", ["up", "up"]), "takes one op, not 2"),
    (custom_op, "unknown type 'Mylayer' without attribute 'shape'"),
    (custom_op_with_shape, "stored as [1, 3, 6, 3] but must be [1, 3, 6, 9]"),
    (lambda g: setattr(g.op("conv").tensor, "shape", (1, 3, 6, 4)), "must be [1, 3, 6, 3]"),
    (lambda g: setattr(g.op("x").tensor, "shape", (1, 6, 5, 2)), "must be [1, 5, 6, 2]"),
    (lambda g: setattr(g.op("b").tensor, "shape", (2,)), "'b': output is stored as [2]"),
    (set_attr("conv", "kernel", [3, 2], "int32_vec"), "do not have the kernel (w, h) = (3, 2)"),
    (lambda g: setattr(g.op("conv").tensor, "data_type", "FLOAT"), "'conv' (conv2d-fix) has a float output"),
    (lambda g: setattr(g.op("conv").tensor, "bit_width", 16), "stored as XINT16 but must be XINT8"),
    (tensor_attr("conv", "fix_point", 3, "int64"), "attribute 'fix_point' is int64, XIR reads int32"),
    (tensor_attr("conv", "round_mode", "NEAREST", "string"), "round_mode 'NEAREST' is none of"),
    (tensor_attr("conv", "bit_width", 4, "int32"), "attribute bit_width is not its 8 bits"),
    (lambda g: g.op("conv").tensor.attrs.pop("fix_point"), "lacks the attribute 'fix_point'"),
    (tensor_attr("up", "fix_point", 5, "int32"), "'up' (upload) joins different fix_points: ['4', '5']"),
    (set_attr("w", "data", b"\0" * 35, "bytes"), "'w' (const-fix) holds 35 bytes of data instead of 36"),
    (set_attr("w", "data", b"", "bytes"), "'w' (const-fix) holds 0 bytes of data instead of 36"),
    (second_tensor_name, "tensor name 'conv' is empty or used twice"),
    (lambda g: g.attrs.set("return_ops", "out", "string"), "'return_ops' is string, XIR reads string_vec"),
    (
        of_dpu(lambda s: s.attrs.pop("dpu_name")),
        "'subgraph_conv' lacks the attribute 'dpu_name'",
    ),
    (of_dpu(lambda s: s.attrs.pop("runner")), "lacks the attribute 'runner'"),
    (of_dpu(lambda s: s.attrs.set("dpu_fingerprint", 1, "int64")), "is int64, XIR reads uint64"),
    (of_dpu(lambda s: s.attrs.__setitem__("device", "GPU")), "device 'GPU' is none of USER, DPU, CPU"),
    (of_dpu(lambda s: s.attrs.pop("device")), "device None is none of"),
    (of_dpu(lambda s: s.attrs.__setitem__("children_topological_sort", ["y"])), "topological_sort names 'y'"),
    (set_attr("conv", "device", "CPU", "string"), "CPU op 'conv' is in the DPU subgraph"),
    (swap_children, "child 'subgraph_out' reads 'down', made by a later child"),
    (lambda g: setattr(g.proto.subg_root.subg_child[2], "subgraph_name", "subgraph_x"), "two subgraphs are"),
]

STRICT = [
    (lambda g: g.attrs.set("return_ops", ["y"], "string_vec"), "return_ops names 'y', which does not exist"),
    (lambda g: g.op("conv").attrs.set("__mine", 1, "int32"), "'__mine' is private"),
    (lambda g: g.op("conv").attrs.set("m", {"a": "b"}, "map_string_2_string"), "which Netron refuses"),
]


@pytest.mark.parametrize(("change", "message"), STRUCTURE)
def test_structure(change, message):
    graph = small_graph()
    change(graph)
    problems = validate.structure(graph)
    assert any(message in problem for problem in problems), problems
    assert validate.validate(graph) == problems


@pytest.mark.parametrize(("change", "message"), RULES)
def test_rules(change, message):
    graph = small_graph()
    change(graph)
    assert validate.structure(graph) == []
    problems = validate.validate(graph)
    assert any(message in problem for problem in problems), problems


@pytest.mark.parametrize(("change", "message"), STRICT)
def test_rules_for_our_own_files(change, message):
    graph = small_graph()
    change(graph)
    assert validate.validate(graph) == []
    problems = validate.validate(graph, strict=True)
    assert len(problems) == 1 and message in problems[0]


def test_parameters_of_a_compiled_file_may_lie_in_the_subgraph():
    graph = small_graph()
    graph.op("w").attrs["data"] = b""
    graph.op("w").tensor.attrs.update({"reg_id": 0, "ddr_addr": 64})
    dpu = graph.subgraphs("DPU")[0]
    dpu.attrs["reg_id_to_parameter_value"] = {"REG_0": bytes(64 + 36)}
    assert validate.validate(graph) == []
    dpu.attrs["reg_id_to_parameter_value"] = {"REG_0": bytes(64 + 35)}
    assert validate.validate(graph) == ["op 'w' (const-fix) holds 35 bytes of data instead of 36"]


def test_return_ops_that_are_gone_are_odd_but_run():
    """Compiled PyTorch files name ops of the quantized graph; XIR does not mind
    (docs/reference/instruction-set.md, "Rules that are none")."""
    graph = small_graph()
    assert validate.oddities(graph) == []
    graph.attrs.set("return_ops", ["y_fix"], "string_vec")
    assert validate.validate(graph) == []
    assert validate.oddities(graph) == [
        "graph: return_ops names 'y_fix', which does not exist; the ops that nobody reads are taken"
    ]
    assert "odd, but it runs: graph: return_ops names 'y_fix'" in describe(graph)


def test_attributes_that_nothing_reads_may_be_of_any_kind():
    graph = small_graph()
    graph.op("conv").attrs.set("in_dim", 3, "int64")
    graph.op("conv").attrs.set("quant_in_signed", 1, "int32")
    assert validate.validate(graph, strict=True) == []


def joined(type_, attrs):
    """A graph that joins (or moves) tensors of fix_points 3 and 4 into one of 3."""
    graph = Graph("g")
    names = ["a", "b"] if type_ == "concat-fix" else ["b"]
    for name, fix_point in zip(names, (3, 4)[-len(names) :], strict=True):
        fixed(graph.add_op(name, "data-fix", attrs={"shape": [1, 2], "data_type": "XINT8"}), fix_point)
    fixed(graph.add_op("c", type_, {"input": names}, attrs), 3)
    graph.root.add_child("all", [*names, "c"]).attrs["device"] = "USER"
    return graph


def test_a_concat_may_rescale_but_a_reshape_moves_bytes():
    assert validate.validate(joined("concat-fix", {"axis": 1})) == []
    problem = "op 'c' (reshape-fix) joins different fix_points: ['3', '4']"
    assert validate.validate(joined("reshape-fix", {"shape": [2, 1]})) == [problem]


def test_every_value_that_is_checked_belongs_to_an_attribute_of_xir():
    """A misspelt key would check nothing."""
    for key in validate.CHOICES:
        if isinstance(key, tuple):
            type_, name = key
            assert type_ in opdefs.OTHER_TYPES or name in opdefs.OPDEFS[type_].attrs, key
        else:
            assert any(key in definition.attrs for definition in opdefs.OPDEFS.values()), key


def test_every_wild_file_is_valid(shared):
    """25 files of other people's projects, compilers 1.4 to 3.5: no false refusal, one oddity."""
    odd, count = {}, 0
    for path in sorted(shared("golden/wild").glob("*.xmodel")):
        graph = Graph.load(path)
        assert validate.validate(graph) == [], path.name
        assert f"graph {graph.name}: " in describe(graph)
        odd[path.stem] = validate.oddities(graph)
        count += 1
    assert count >= 25
    assert [stem for stem, found in odd.items() if found] == ["mlp_63_pt_isa0_b4096_1.4"]
