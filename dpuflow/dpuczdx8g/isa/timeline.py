"""A page or a picture of the four engines over time: where a program's cycles go, layer by layer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from dpuflow.device.targets import Board
from dpuflow.dpuczdx8g.bounds import HELP
from dpuflow.dpuczdx8g.isa.attribution import layers_of
from dpuflow.dpuczdx8g.isa.breakdown import (
    CONV,
    LOAD,
    MISC,
    SAVE,
    LayerTime,
    breakdown,
    engines_at_work,
)
from dpuflow.dpuczdx8g.isa.code import decode
from dpuflow.dpuczdx8g.isa.cycles import Schedule, schedule
from dpuflow.dpuczdx8g.isa.formats import ENGINES
from dpuflow.dpuczdx8g.isa.machine import machine_for
from dpuflow.dpuczdx8g.isa.program import read_programs
from dpuflow.dpuczdx8g.timing import TIMING, assumptions
from dpuflow.xir import Graph

BINS, LONGEST = 480, 36
LIGHT = ("#0072b2", "#d98200", "#00805c", "#b0568f", "#5aa9dd", "#8c6d1f")
DARK = ("#3b93d0", "#e8a33d", "#35b38a", "#d184b6", "#8ccbf2", "#bda052")
"""Colours that layers take in turns, on a light ground and on a dark one."""
LANES = (LOAD, CONV, MISC, SAVE)
"""Engines from top to bottom, the way that data go."""
LANE, GAP, LEFT, WIDTH = 34.0, 8.0, 46.0, 1000.0
MARGIN, HEAD = 16.0, 62.0
"""Of a picture: around it, and above the lanes of a program."""
TITLES = {LOAD: "LOAD", SAVE: "SAVE", CONV: "CONV", MISC: "ALU"}


def timeline(
    graph: Graph, source: Path | str, clock_mhz: float = TIMING.clock_mhz, picture: bool = False
) -> str:
    """HTML page of all DPU subgraphs of a compiled graph, for a DPU of that clock.

    picture : the engines alone, as an SVG file. UserError when the file has no machine code for a DPUCZDX8G.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dpuflow.dpuczdx8g.isa", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["whole"] = lambda value: f"{value:,.0f}"
    environment.filters["percent"] = lambda value: f"{100 * value:.1f} %"
    board = Board("", cores=1, clock_mhz=clock_mhz)
    timing = TIMING.on(board)
    programs = [_program(graph, program, timing) for program in read_programs(graph, source)]
    top = MARGIN + HEAD / 2
    for program in programs:
        program["top"] = top + HEAD
        top += HEAD + program["height"]
    page = environment.get_template("timeline.svg.j2" if picture else "timeline.html.j2")
    return page.render(
        source=Path(source).name,
        programs=programs,
        clock=clock_mhz,
        lanes=[TITLES[engine] for engine in LANES],
        notes=assumptions(board, timing)["notes"],
        light=LIGHT,
        dark=DARK,
        margin=MARGIN,
        width=LEFT + WIDTH + 2 * MARGIN,
        height=top + MARGIN,
    )


def _program(graph, program, timing):
    instructions = decode(program.code, program.name)
    made = schedule(instructions, timing)
    names, layers = layers_of(graph, program, instructions)
    rows = breakdown(instructions, made, names, layers)
    busy = made.busy()
    return {
        "name": program.name,
        "machine": machine_for(program.fingerprint, program.name).name,
        "instructions": len(instructions),
        "cycles": made.cycles,
        "milliseconds": made.cycles / timing.clock_mhz / 1e3,
        "busy": [(TITLES[engine], busy[engine], busy[engine] / (made.cycles or 1)) for engine in LANES],
        "computing": sum(row.computing for row in rows),
        "waiting": [sum(row.waiting[engine] for row in rows) for engine in (LOAD, SAVE)],
        "bytes": sum(row.bytes for row in rows),
        "drawing": _drawing(made, names, layers),
        "layers": _table(rows, made.cycles),
        "advice": _advice(rows, made.cycles),
        "ticks": _ticks(made.cycles),
        "height": len(LANES) * (LANE + GAP) + 22.0,
        "width": WIDTH,
        "left": LEFT,
    }


def _table(rows: Sequence[LayerTime], cycles: float) -> list[dict[str, Any]]:
    """A row of the table per layer; bars are parts of the longest."""
    longest = max((row.time for row in rows), default=0.0) or 1.0
    return [
        {
            "number": number,
            "name": row.name or "no layer found",
            "short": _short(row.name) or "no layer found",
            "colour": number % len(LIGHT),
            "time": row.time,
            "share": row.time / (cycles or 1),
            "bars": [
                ("compute", "computing", 100 * row.computing / longest),
                ("load", "waits for LOAD", 100 * row.waiting[LOAD] / longest),
                ("save", "waits for SAVE", 100 * row.waiting[SAVE] / longest),
            ],
            "busy": [row.busy[engine] for engine in LANES],
            "bytes": row.bytes,
            "transfers": row.transfers,
            "bound": row.limit if row.time else "",
        }
        for number, row in enumerate(rows)
    ]


def _short(name):
    """A name without its middle where it is long: what tells it from others mostly stands at its end."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST // 4]}…{name[-3 * LONGEST // 4 :]}"


def _advice(rows, cycles):
    """What limits the program, the greatest part first: (what, part of the time, what helps)."""
    parts: dict[str, float] = {}
    for row in rows:
        parts[row.limit] = parts.get(row.limit, 0.0) + row.time
    ordered = sorted(parts.items(), key=lambda item: (-item[1], item[0]))
    return [(bound, time / (cycles or 1), HELP[bound]) for bound, time in ordered if time]


def _drawing(made: Schedule, names: Sequence[str], layers: Sequence[int]) -> list[dict[str, Any]]:
    """Rectangles of the lanes: neighbouring stretches of one layer that are equally full are one."""
    parts = engines_at_work(made, layers, BINS)
    step = WIDTH / BINS
    drawn: list[dict[str, Any]] = []
    for lane, engine in enumerate(LANES):
        bottom = lane * (LANE + GAP) + LANE
        for number, stretch in enumerate(parts[engine]):
            if not stretch:
                continue
            layer = max(stretch, key=lambda index: (stretch[index], -index))
            full = round(min(1.0, sum(stretch.values())), 2)
            before = drawn[-1] if drawn else None
            if before and before["key"] == (lane, layer, full) and before["until"] == number:
                before["until"] += 1
                before["width"] += step
                continue
            name = names[layer] if layer >= 0 else "no layer found"
            drawn.append(
                {
                    "key": (lane, layer, full),
                    "until": number + 1,
                    "x": LEFT + number * step,
                    "y": bottom - LANE * full,
                    "width": step,
                    "height": LANE * full,
                    "colour": (layer if layer >= 0 else len(names)) % len(LIGHT),
                    "title": f"{TITLES[engine]}, {name}: {100 * full:.0f} % at work",
                }
            )
    return drawn


def _ticks(cycles):
    """(x, label) of round times in thousands of cycles."""
    if not cycles:
        return []
    raw, power = cycles / 6, 1.0
    while power * 10 <= raw:
        power *= 10
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    count = int(cycles / step)
    unit, word = (1e3, "k") if step >= 1e3 else (1.0, "")
    return [(LEFT + WIDTH * i * step / cycles, f"{i * step / unit:,.0f}{word}") for i in range(count + 1)]


assert len(LANES) == len(ENGINES)
