"""`python -m dpuflow.xir`: what show, diff, svg and proto print."""

import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
from small_graph import small_graph

from dpuflow.xir.__main__ import main
from dpuflow.xir.layout import arrange

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def path(tmp_path):
    small_graph().save(tmp_path / "small.xmodel")
    return tmp_path / "small.xmodel"


def test_show(path, capsys):
    assert main(["show", str(path)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "graph small: 7 ops" in lines
    conv = "4 conv conv2d-fix 1 weights=2 bias=3 1x3x6x3 XINT8 3"
    assert f"{conv} kernel=[2,3] stride=[1,2] pad=[1,0,1,1] nonlinear=RELU" in lines
    assert "subgraph_conv [DPU] DPUCZDX8G_ISA1_B4096 0x101000056010407 no mc_code 5 ops" in lines
    assert "w, b, conv" in lines
    assert lines[-1] == "problems: none"


def test_show_of_a_vendor_file(shared, capsys):
    assert main(["show", str(shared("golden/vendor/zcu102_mnist_3.0.xmodel"))]) == 0
    text = capsys.readouterr().out
    assert "workload 28880256 on_arch 32788992  mc_code 3676 bytes" in text
    assert "subgraph_custom_layer  [CPU]" in text
    assert text.endswith("problems: none\n")


def test_show_lists_the_problems_of_a_broken_file(tmp_path, capsys):
    graph = small_graph()
    graph.op("conv").set_input("input", ["nothing"])
    graph.save(tmp_path / "broken.xmodel", check=False)
    assert main(["show", str(tmp_path / "broken.xmodel")]) == 0
    assert "  - op 'conv' reads 'nothing', which does not exist" in capsys.readouterr().out
    assert main(["svg", str(tmp_path / "broken.xmodel")]) == 2
    assert "reads 'nothing'" in capsys.readouterr().err


def test_diff(path, tmp_path, capsys):
    assert main(["diff", str(path), str(path)]) == 0
    assert capsys.readouterr().out == ""
    graph = small_graph()
    data = bytearray(graph.op("w").attrs["data"])
    data[3], data[7] = 10, 100
    graph.op("w").attrs["data"] = bytes(data)
    graph.op("conv").tensor.attrs["fix_point"] = 2
    graph.op("conv").attrs["nonlinear"] = "NONE"
    graph.op("out").proto.op_name = "other"
    graph.subgraphs("DPU")[0].attrs["dpu_name"] = "DPUCZDX8G_ISA1_B512"
    graph.save(tmp_path / "new.xmodel", check=False)
    graph.proto.subg_root.subg_child[2].op_name[:] = ["other"]
    graph.save(tmp_path / "new.xmodel", check=False)
    assert main(["diff", str(path), str(tmp_path / "new.xmodel")]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "op removed: out (fix2float)",
        "op added: other (fix2float)",
        "op w: 2 of 36 values differ, by up to 93",
        "op conv: nonlinear string RELU -> string NONE",
        "op conv: tensor: fix_point int32 3 -> int32 2",
        "subgraph root: holds other ops",
        "subgraph root/subgraph_conv: dpu_name string DPUCZDX8G_ISA1_B4096 -> string DPUCZDX8G_ISA1_B512",
        "subgraph root/subgraph_out: holds other ops",
    ]


def test_svg_shows_every_op_in_its_colour(path, capsys):
    assert main(["svg", str(path)]) == 0
    written = path.with_suffix(".svg")
    assert capsys.readouterr().out == f"{written}\n"
    root = ElementTree.parse(written).getroot()
    boxes = {}
    for group in root.iter(f"{SVG}g"):
        boxes[group.find(f"{SVG}title").text] = group.find(f"{SVG}rect")
    assert list(boxes) == ["x", "up", "conv", "down", "out"]
    assert len({boxes[name].get("fill") for name in ("up", "conv", "down")}) == 1
    assert len({boxes[name].get("fill") for name in ("x", "conv", "out")}) == 3
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert "weights 3x3x2x2 fix 5" in texts
    assert "conv2d-fix 2x3 /1x2 RELU" in texts
    assert len([p for p in root.findall(f"{SVG}path")]) == 4
    tops = [float(boxes[name].get("y")) for name in boxes]
    assert tops == sorted(tops)


def test_svg_is_deterministic(shared, tmp_path):
    source = str(shared("golden/vendor/voxelnet_quantized_2.0.xmodel"))
    for name in ("a.svg", "b.svg"):
        assert main(["svg", source, "-o", str(tmp_path / name)]) == 0
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_proto(capsys):
    assert main(["proto"]) == 0
    assert "  map<string, AttrValue> op_attr = 3;" in capsys.readouterr().out


@pytest.mark.fault("xmodel", "missing file", "refused")
def test_a_missing_file_is_an_error(tmp_path, capsys):
    assert main(["show", str(tmp_path / "none.xmodel")]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'none.xmodel'}: no such file\n"


def test_boxes_of_a_row_keep_apart():
    nodes = ["in", "a", "b", "c", "d", "out"]
    edges = [("in", n) for n in "abcd"] + [(n, "out") for n in "abcd"] + [("in", "out")]
    widths = {"in": 50, "a": 80, "b": 120, "c": 40, "d": 60, "out": 50}
    layout = arrange(nodes, edges, widths, gap=10)
    row = sorted((layout.centres[n][0] - widths[n] / 2, layout.centres[n][0] + widths[n] / 2) for n in "abcd")
    assert all(right + 10 <= left + 1e-6 for (_, right), (left, _) in pairwise(row))
    assert {layout.centres[n][1] for n in "abcd"} == {1}
    assert layout.rows == 3
    assert row[0][0] >= 0 and row[-1][1] <= layout.width
    (direct,) = [route for edge, route in layout.routes if edge == ("in", "out")]
    bend = direct[1][0]
    assert all(bend <= left or bend >= right for left, right in row)
