"""The network as a drawing: a row per layer, shortcuts as lanes, where each runs, its share of the time."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from dpuflow.network import QuantizedNetwork
from dpuflow.report.inputs import LoadedRun
from dpuflow.report.svg import drawing, element
from dpuflow.report.wording import percent

ROW, LANE, LEFT = 24, 14, 14
TEXT, BAR, BAR_WIDTH = 240, 560, 120
"""Units of the drawing: height of a row, width of a lane, the first lane's place; width of the texts'
column, place and width of the bars' one."""
FOLDED_ROWS = 40
"""A drawing with more rows unfolds on demand."""


def lanes_of(inputs: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Which lane each layer's dot stands in. inputs : layer -> layers that it reads, in topological order.

    A layer goes on in the lane of its first input that nobody reads later, else in the first free lane.
    A lane is free again when the last reader of its layer is placed.
    """
    last = {name: name for name in inputs}
    for name, read in inputs.items():
        last |= dict.fromkeys(read, name)
    lanes: dict[str, int] = {}
    taken: dict[int, str] = {}
    for name, read in inputs.items():
        ending = [other for other in read if last[other] == name]
        for other in ending:
            taken.pop(lanes[other], None)
        free = next(i for i in range(len(inputs) + 1) if i not in taken)
        lanes[name] = min((lanes[other] for other in ending), default=free)
        taken[lanes[name]] = name
    return lanes


def network_drawing(run: LoadedRun, quantized: QuantizedNetwork | None) -> dict[str, Any] | None:
    """{"svg", "rows"} of a run's network; None without its quantized model.

    A dot is filled where the layer runs on the DPU, hollow on the CPU; a bar is the layer's share of the
    estimated time of all layers.
    """
    if quantized is None:
        return None
    compiled = run.compile or {}
    times = {row["name"]: row["time_us"] for row in compiled.get("estimate", {}).get("layers", [])}
    on_cpu = {entry["layer"] for entry in compiled.get("findings", [])}
    layers = [layer for layer in quantized.network.layers if not layer.operator.renames]
    renamed = {layer.name: layer.inputs[0] for layer in quantized.network.layers if layer.operator.renames}

    def source(name: str) -> str:
        while name in renamed:
            name = renamed[name]
        return name

    inputs = {layer.name: [source(name) for name in layer.inputs] for layer in layers}
    lanes = lanes_of(inputs)
    text_x = LEFT + LANE * (max(lanes.values(), default=0) + 1) + 4
    total = sum(times.values()) or 1.0
    place = {name: (LEFT + LANE * lanes[name], ROW * row + ROW / 2) for row, name in enumerate(inputs)}
    parts: list[Markup] = [_edge(place[other], place[name]) for name in inputs for other in inputs[name]]
    for layer in layers:
        x, y = place[layer.name]
        cpu = layer.name in on_cpu or not layer.operator.quantized
        fix_point = quantized.fix_points.get(layer.name)
        fix_text = "" if fix_point is None else str(fix_point)
        what = f"{layer.op} {'×'.join(map(str, layer.shape))}"
        share = times.get(layer.name, 0.0) / total
        words = [f"{layer.name}: {what}", f"on the {'CPU' if cpu else 'DPU'}"]
        words += [f"fix_point {fix_text}"] if fix_text else []
        words += [f"{percent(share)} of the estimated time"] if layer.name in times else []
        bar = {"x": BAR + text_x, "y": y - 5, "width": max(BAR_WIDTH * share, 0.01), "height": 10}
        row = [
            element("title", ", ".join(words)),
            element("circle", cx=x, cy=y, r=4.5, class_="cpu" if cpu else "dpu"),
            element("text", _cut(layer.name, 34), x=text_x, y=y + 4, class_="name"),
            element("text", what, x=text_x + TEXT, y=y + 4),
            element("text", fix_text, x=BAR + text_x - 14, y=y + 4, text_anchor="end"),
            element("rect", **bar, class_="share"),
        ]
        parts.append(element("g", *row, class_="layer"))
    width, height = text_x + BAR + BAR_WIDTH, ROW * len(layers)
    label = f"The network: {len(layers)} layers, {sum(name in on_cpu for name in inputs)} on the CPU"
    return {"svg": drawing(width, height, label, parts, class_="figure network"), "rows": len(layers)}


def _edge(start: tuple[float, float], end: tuple[float, float]) -> Markup:
    """Down the lane of the producer, then over to the reader's dot."""
    (x1, y1), (x2, y2) = start, end
    bend = y2 - ROW
    path = f"M{x1:g} {y1:g}V{bend:g}" + (
        f"C{x1:g} {y2 - 8:g} {x2:g} {bend + 8:g} {x2:g} {y2:g}" if x1 != x2 else f"V{y2:g}"
    )
    return element("path", d=path, class_="edge")


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else "…" + text[1 - length :]
