"""Where the estimated time of a run goes: the layers' bars, the roofline, what limits each and what helps."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from markupsafe import Markup

from dpuflow.dpuczdx8g.bounds import HELP, LIMITS, limit
from dpuflow.report.svg import drawing, element, log_ticks, number

TEMPLATE = "roofline.html.j2"
"""Of its section in the report; named here for `workflow.code_closure`."""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 480, 300, 56, 18, 16, 42
SHOWN = 12
"""Longest layers that are shown unfolded."""
CLASSES = {name: f"limit{index}" for index, name in enumerate(LIMITS)}


def roofline(estimate: Mapping[str, Any]) -> dict[str, Any] | None:
    """Views of an estimate of `compile.json`; None for a network that computes nothing.

    Returns
    -------
    dict: source ("the machine code" or "the layers"), rows (name, op, us, share of all, part of the longest,
    limit, class) with the longest first, shown (how many of them unfolded), limits (limit, share, help,
    class) with the greatest first, chart (Markup or None).
    """
    rows = _rows(estimate)
    total = sum(row["us"] for row in rows)
    if not total:
        return None
    longest = max(row["us"] for row in rows)
    for row in rows:
        row |= {"share": row["us"] / total, "part": row["us"] / longest, "class": CLASSES[row["limit"]]}
    shares = {name: sum(row["share"] for row in rows if row["limit"] == name) for name in LIMITS}
    ordered = sorted((name for name in LIMITS if shares[name] > 0), key=lambda name: -shares[name])
    return {
        "source": "the machine code" if "machine_code" in estimate else "the layers",
        "rows": sorted(rows, key=lambda row: -row["us"]),
        "shown": SHOWN,
        "limits": [(name, shares[name], HELP[name], CLASSES[name]) for name in ordered],
        "chart": _chart(estimate),
    }


def _rows(estimate):
    """A row per layer: of the machine code where there is one."""
    kinds = {layer["name"]: layer["op"] for layer in estimate["layers"]}
    if "machine_code" in estimate:
        layers, clock = estimate["machine_code"]["layers"], estimate["clock_mhz"]
        times = [layer["cycles"] / clock for layer in layers]
    else:
        layers = estimate["layers"]
        times = [layer["time_us"] for layer in layers]
    return [
        {
            "name": layer["name"] or "no layer found",
            "op": kinds.get(layer["name"], ""),
            "us": time,
            "limit": limit(layer["bound"], layer["engine"]),
        }
        for layer, time in zip(layers, times, strict=True)
    ]


def _chart(estimate) -> Markup | None:
    """Operations per second against operations per byte from DDR, both logarithmic, below the DPU's roofs.

    Layers are on their own here, without what overlaps with their neighbours.
    """
    layers = [
        (layer["workload"] / layer["ddr_bytes"], max(layer["compute_us"], layer["memory_us"]), layer)
        for layer in estimate["layers"]
        if layer["workload"] and layer["ddr_bytes"] and max(layer["compute_us"], layer["memory_us"])
    ]
    if not layers:
        return None
    peak = estimate["peak_operations"] * estimate["clock_mhz"] / 1e3
    taken = estimate["assumptions"]
    ports = taken["bytes_per_cycle"] * taken["clock_mhz"] / 1e3
    bandwidth = min(ports, taken["memory_share"] * taken["memory_gb_s"])
    ridge, longest = peak / bandwidth, max(alone for _, alone, _ in layers)
    dots = [(intensity, layer["workload"] / alone / 1e3, alone, layer) for intensity, alone, layer in layers]
    low_x = min([ridge / 4, *(dot[0] for dot in dots)]) / 1.3
    high_x = max([ridge * 4, *(dot[0] for dot in dots)]) * 1.3
    low_y, high_y = min([peak / 10, *(dot[1] for dot in dots)]) / 1.5, peak * 1.6
    x, y = _scale(low_x, high_x, LEFT, WIDTH - RIGHT), _scale(low_y, high_y, HEIGHT - BOTTOM, TOP)
    parts: list[Markup] = []
    for value in log_ticks(low_y, high_y):
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(value), y2=y(value), class_="grid"))
        words = _label(value)
        parts.append(element("text", words, x=LEFT - 6, y=y(value) + 4, text_anchor="end", class_="tick"))
    parts += [_under(_label(v), x(v), HEIGHT - BOTTOM + 17, "tick") for v in log_ticks(low_x, high_x)]
    start = max(low_x, low_y / bandwidth)
    corners = [(start, start * bandwidth), (ridge, peak), (high_x, peak)]
    roof = " ".join(f"{number(x(a))},{number(y(b))}" for a, b in corners)
    parts.append(element("polyline", points=roof, class_="roof"))
    words = f"{peak:,.0f} GOP/s"
    parts.append(element("text", words, x=WIDTH - RIGHT, y=y(peak) - 5, text_anchor="end", class_="axis"))
    for intensity, speed, alone, layer in sorted(dots, key=lambda dot: -dot[2]):
        limited = limit(layer["bound"], layer["engine"])
        dot = element(
            "title",
            f"{layer['name']}: {speed:,.0f} GOP/s, {intensity:,.1f} operations per byte, {alone:,.1f} µs,"
            f" limited by {limited}",
        )
        radius, kind = 2.5 + 9 * (alone / longest) ** 0.5, f"layer {CLASSES[limited]}"
        parts.append(element("circle", dot, cx=x(intensity), cy=y(speed), r=radius, class_=kind))
    parts.append(_under("operations per DDR byte", (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, "axis"))
    parts.append(element("text", "GOP/s", x=4, y=11, class_="axis"))
    return drawing(WIDTH, HEIGHT, "Roofline of the layers", parts, class_="figure roofline")


def _label(value):
    return number(value) if value < 1000 else f"{number(value / 1000)}k"


def _under(text: str, x: float, y: float, class_: str) -> Markup:
    return element("text", text, x=x, y=y, text_anchor="middle", class_=class_)


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = math.log(high / low)
    return lambda value: start + (end - start) * math.log(value / low) / span
