"""The op table against the definitions that a vendor-made file carries."""

from dpuflow.xir import Graph, opdefs, schema
from dpuflow.xir.attributes import decode, kind_of

OCCURRENCE = {
    (True, False): "REQUIRED",
    (False, False): "OPTIONAL",
    (True, True): "REQUIRED_AND_REPEATED",
}


def test_table_agrees_with_the_vendors_definitions(shared):
    graph = Graph.load(shared("golden/vendor/zcu102_mnist_3.0.xmodel"))
    theirs = {proto.name: proto for proto in graph.proto.op_defs}
    assert set(opdefs.OPDEFS) <= set(theirs)
    for name, ours in opdefs.OPDEFS.items():
        arguments = {arg.name: schema.OCCURRENCE[arg.occur_type] for arg in theirs[name].input_args}
        assert {a.name: OCCURRENCE[a.required, a.repeated] for a in ours.args.values()} == arguments, name
        attributes = {attr.name: attr for attr in theirs[name].attrs}
        assert set(ours.attrs) == set(attributes), name
        for attr in ours.attrs.values():
            proto = attributes[attr.name]
            assert attr.required == (proto.occur_type == 0), (name, attr.name)
            assert attr.kind == kind_of(proto.default_value), (name, attr.name)
            if attr.kind.endswith("_vec"):
                assert (attr.length or 0) == proto.list_length, (name, attr.name)
            if not attr.required:
                assert attr.default == decode(proto.default_value), (name, attr.name)


def test_every_other_type_is_known_by_name(shared):
    graph = Graph.load(shared("golden/vendor/zcu102_mnist_3.0.xmodel"))
    theirs = {proto.name for proto in graph.proto.op_defs} - {"Mylayer"}
    assert theirs - set(opdefs.OPDEFS) == opdefs.OTHER_TYPES


def test_a_definition_in_the_file_is_read(shared):
    graph = Graph.load(shared("golden/vendor/zcu102_mnist_3.0.xmodel"))
    proto = next(proto for proto in graph.proto.op_defs if proto.name == "conv2d-fix")
    definition = opdefs.from_proto(proto)
    ours = opdefs.OPDEFS["conv2d-fix"]
    assert definition.args == ours.args
    assert definition.attrs == ours.attrs


def test_kinds_of_an_op_type():
    kinds = opdefs.op_attr_kinds("conv2d-fix")
    assert kinds["kernel"] == "int32_vec"
    assert kinds["workload"] == "uint64"
    assert opdefs.op_attr_kinds("Mylayer")["shape"] == "int32_vec"
