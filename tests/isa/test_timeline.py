"""Where the cycles go: instructions to layers, times to reasons, and the page that shows both."""

import re
from collections import Counter
from xml.etree import ElementTree

import pytest

from dpuflow.dpuczdx8g.isa import shell
from dpuflow.dpuczdx8g.isa.attribution import UNKNOWN, layers_of
from dpuflow.dpuczdx8g.isa.breakdown import (
    LOAD,
    SAVE,
    LayerTime,
    breakdown,
    engines_at_work,
)
from dpuflow.dpuczdx8g.isa.code import decode, make
from dpuflow.dpuczdx8g.isa.cycles import schedule
from dpuflow.dpuczdx8g.isa.program import read_programs
from dpuflow.dpuczdx8g.isa.timeline import timeline
from dpuflow.dpuczdx8g.timing import Timing
from dpuflow.xir import Graph
from tests.isa.quantized_builder import Builder


@pytest.fixture(scope="module")
def compiled():
    """Convolution, depthwise, pool, add and a dense layer, compiled: (graph, program, instructions)."""
    from dpuflow.compiler.reference import lower
    from dpuflow.device.targets import get_target
    from dpuflow.dpuczdx8g.native.compile import compile_graph

    b = Builder((24, 24, 16))
    first = b.conv("input", 32)
    deep = b.depthwise(first)
    added = b.layer("add", [first, deep], (24, 24, 32), 4, activation="NONE")
    network = b.quantized("all", b.dense(b.flatten(b.pool(added, kernel=(3, 3))), 10))
    graph = lower(network, get_target("DPUCZDX8G_ISA1_B4096"))
    compile_graph(graph)
    graph = Graph.from_bytes(graph.to_bytes())
    (program,) = read_programs(graph)
    return graph, program, decode(program.code)


def test_every_instruction_finds_its_layer(compiled):
    graph, program, instructions = compiled
    names, layers = layers_of(graph, program, instructions)
    assert UNKNOWN not in layers
    kinds = {}
    for layer, op in zip(layers, instructions, strict=True):
        kinds.setdefault(op.name, set()).add(graph.op(names[layer]).type)
    assert kinds["CONV"] == {"conv2d-fix"} and kinds["ELEW"] == {"eltwise-fix"}
    assert kinds["ALU"] == {"depthwise-conv2d-fix", "pool-fix"}
    assert kinds["LOAD"] >= {"conv2d-fix", "depthwise-conv2d-fix"}
    assert layers[-1] == len(names) - 1 and instructions[-1].name == "END"


def test_the_parts_add_up(compiled):
    graph, program, instructions = compiled
    made = schedule(instructions)
    rows = breakdown(instructions, made, *layers_of(graph, program, instructions))
    assert [row.name for row in rows] == layers_of(graph, program, instructions)[0]
    assert sum(row.time for row in rows) == pytest.approx(made.cycles)
    for engine in range(4):
        assert sum(row.busy[engine] for row in rows) == pytest.approx(made.busy()[engine])
    counts = Counter(op.name for op in instructions)
    assert sum(row.transfers for row in rows) == counts["LOAD"] + counts["SAVE"]
    layers = layers_of(graph, program, instructions)[1]
    parts = engines_at_work(made, layers, 50)
    for engine, busy in enumerate(made.busy()):
        assert sum(sum(stretch.values()) for stretch in parts[engine]) * made.cycles / 50 == pytest.approx(
            busy
        )


def test_whose_time_it_is():
    """A CONV that waits for its LOAD, an ALU beside it that outlasts it, a SAVE at the end."""
    load, save, conv, misc = (1 << number for number in range(4))
    program = [
        make("LOAD", load, load | conv, length=1, channel=32, jump_read=32, pad_idx=1),
        make("CONVINIT", conv, conv),
        make("CONV", conv | load, conv | misc, length=100),
        make("ALUINIT", misc, misc, length=40),
        make("ALU", misc, misc),
        make("CONVINIT", conv, conv),
        make("ALU", misc | conv, misc | save),
        make("SAVE", save | misc, save, length=1, channel=32),
    ]
    made = schedule(program, Timing(issue_cycles=0.0))
    first, second = breakdown(program, made, ["conv", "alu"], [0, 0, 0, 1, 1, 0, 1, 1])
    loading = made.end[0]
    # the first ALU starts at once and computes while the LOAD is on its way
    assert second.computing == pytest.approx(70 + 70) and first.computing == pytest.approx(100 + loading - 70)
    assert second.waiting == {LOAD: 0, SAVE: pytest.approx(made.end[-1] - made.start[-1])}
    assert first.waiting == {LOAD: 0, SAVE: 0}


@pytest.mark.parametrize(
    ("computing", "busy", "transfers", "limit"),
    [
        (9.0, [1, 1, 5, 2], 1, "the array"),
        (9.0, [1, 1, 2, 5], 1, "the ALU"),
        (1.0, [90, 0, 1, 0], 2, "DDR bytes"),
        (1.0, [90, 0, 1, 0], 9, "instruction issue"),
    ],
)
def test_what_limits_a_layer(computing, busy, transfers, limit):
    row = LayerTime("x", busy=busy, computing=computing, waiting={LOAD: 5.0, SAVE: 1.0}, transfers=transfers)
    assert row.limit == limit and row.time == computing + 6


@pytest.mark.parametrize(("issued", "limit"), [(8, "the array"), (9, "instruction issue")])
def test_many_short_computations_are_limited_by_instruction_issue(issued, limit):
    row = LayerTime("x", busy=[0, 0, 900, 100], computing=1000.0, issued=issued)
    assert row.limit == limit


def test_the_page(compiled, tmp_path, capsys):
    graph, _, instructions = compiled
    path = tmp_path / "model.xmodel"
    graph.save(path)
    assert shell.main(["timeline", str(path), "--clock", "250"]) == 0
    page = tmp_path / "model.timeline.html"
    assert capsys.readouterr().out.strip() == str(page)
    html = page.read_text()
    cycles = schedule(instructions).cycles
    assert f"{cycles:,.0f}" in html and f"{cycles / 250e3:.3f} ms" in html and "at 250 MHz" in html
    assert html.count("<tr><td") == 5 and "http" not in html and "<script" not in html
    shares = [float(part) for part in re.findall(r'"num">([\d.]+) %', html)]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    assert timeline(graph, path, 250.0) == html


def test_the_picture(compiled, tmp_path):
    graph, _, instructions = compiled
    path = tmp_path / "a<b>.xmodel"
    graph.save(path)
    picture = tmp_path / "model.svg"
    assert shell.main(["timeline", str(path), "-o", str(picture)]) == 0
    root = ElementTree.parse(picture).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    words = " ".join(root.itertext())
    cycles = schedule(instructions).cycles
    assert (
        "a<b>.xmodel: the engines over time" in words
        and f"{cycles / 300e3:.3f} ms, {cycles:,.0f} cycles" in words
    )
    rectangles = root.findall(".//{http://www.w3.org/2000/svg}rect")
    _, _, width, height = (float(number) for number in root.get("viewBox").split())
    assert len(rectangles) > 20 and width > 1000 and height > 200


def test_a_page_never_replaces_its_xmodel(tmp_path, capsys):
    path = tmp_path / "model.xmodel"
    path.write_bytes(b"kept")
    assert shell.main(["timeline", str(path), "-o", str(path)]) == 1
    assert "expected a file of .html, .htm, .svg" in capsys.readouterr().err and path.read_bytes() == b"kept"


def test_what_has_no_machine_code_is_refused(tmp_path, capsys):
    assert shell.main(["timeline", str(tmp_path / "none.xmodel")]) == 1
    assert "none.xmodel" in capsys.readouterr().err
    assert shell.main(["timeline", "x.xmodel", "--clock", "0"]) == 1
    assert "--clock 0" in capsys.readouterr().err


def test_vendor_programs(shared):
    """Every instruction of the vendor's code finds a layer, and every layer an instruction."""
    for name in ("mobilenetv2_224_pt_b4096_3.5", "efficientnetv2_48x28_96_k5_hswish_pt_b2304_3.5"):
        graph = Graph.load(shared(f"golden/wild/{name}.xmodel"))
        for program in read_programs(graph):
            instructions = decode(program.code)
            names, layers = layers_of(graph, program, instructions)
            assert set(layers) == set(range(len(names)))
            made = schedule(instructions)
            rows = breakdown(instructions, made, names, layers)
            assert sum(row.time for row in rows) == pytest.approx(made.cycles)
            # depthwise layers are what takes the time
            slow = max(rows, key=lambda row: row.time)
            assert slow.limit == "the ALU" and graph.op(slow.name).type == "depthwise-conv2d-fix"
