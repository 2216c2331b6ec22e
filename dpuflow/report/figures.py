"""Charts of the report: training curves, confusion matrices, scatter plots."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike

from dpuflow.report.svg import drawing, element, log_ticks, number, ticks

WIDTH, HEIGHT = 480, 270
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 40
LABEL_CHARACTERS, UPRIGHT_CHARACTERS, CHARACTER_WIDTH = 18, 2, 6.6
"""Of a confusion matrix: the longest name that is shown whole, the longest that stands upright above its
column, and the widest character's width in the drawing's units."""


def curves(
    title: str,
    series: Sequence[tuple[str, Iterable[float | None], str]],
    best_epoch: int | None = None,
    percent: bool = False,
) -> Markup:
    """Line chart over epochs 1..n.

    series : list of (name, values, css class); values may hold NaN or None, which leave a gap.
    best_epoch : 1-based epoch to mark with a vertical line, or None.
    """
    lines = [
        (n, np.array([math.nan if v is None else v for v in values], float), c) for n, values, c in series
    ]
    epochs = max(len(values) for _, values, _ in lines)
    finite = np.concatenate([values[np.isfinite(values)] for _, values, _ in lines])
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    pad = (high - low) * 0.06 or abs(high) * 0.05 or 0.5
    low, high = low - pad, high + pad
    if percent:
        high = min(high, 1.004)
    x = _scale(1, max(epochs, 2), LEFT, WIDTH - RIGHT)
    y = _scale(low, high, HEIGHT - BOTTOM, TOP)
    parts = _grid_y(y, ticks(low, min(high, 1.0) if percent else high), percent)
    for tick in [t for t in ticks(1, max(epochs, 2), 7) if t == int(t) and t <= epochs]:
        parts.append(_tick_x(x(tick), f"{int(tick)}"))
    parts.append(_axis_title("epoch"))
    if best_epoch is not None:
        parts.append(_line(x(best_epoch), TOP, x(best_epoch), HEIGHT - BOTTOM, "mark"))
    for name, values, class_ in lines:
        points = [(x(i + 1), y(v)) for i, v in enumerate(values) if math.isfinite(v)]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(element("polyline", points=path, class_=f"curve {class_}"))
        for (a, b), v, epoch in zip(
            points, values[np.isfinite(values)], np.flatnonzero(np.isfinite(values)) + 1, strict=True
        ):
            shown = f"{v * 100:.2f} %" if percent else f"{v:.4f}"
            dot = element("title", f"{name}, epoch {epoch}: {shown}")
            parts.append(element("circle", dot, cx=a, cy=b, r=2.6, class_=f"dot {class_}"))
    return drawing(WIDTH, HEIGHT, f"{title} over {epochs} epochs", parts)


def precision_recall(title: str, series: Sequence[tuple[str, Sequence[float], str]]) -> Markup:
    """Line chart of precision by recall.

    series : (name, precision at recall 0 to 1 in equal steps, css class).
    """
    x, y = _scale(0, 1, LEFT, WIDTH - RIGHT), _scale(0, 1.02, HEIGHT - BOTTOM, TOP)
    parts = _grid_y(y, ticks(0, 1), True)
    # the last one ends at the edge of the drawing
    parts += [_tick_x(x(tick) - 10 * (tick == 1), f"{tick * 100:.0f} %") for tick in ticks(0, 1, 5)]
    parts.append(_axis_title("recall"))
    for name, values, class_ in series:
        last = len(values) - 1
        points = " ".join(f"{x(i / last):.1f},{y(value):.1f}" for i, value in enumerate(values))
        parts.append(element("polyline", element("title", name), points=points, class_=f"curve {class_}"))
    return drawing(WIDTH, HEIGHT, f"{title} by recall, {len(series)} stages", parts)


def confusion(matrix: ArrayLike, names: Sequence[str], title: str, anchor: str) -> tuple[Markup, Markup]:
    """Heat map of a confusion matrix: rows true, columns predicted; classes never seen are left out.

    The diagonal is shaded by the class's own accuracy, errors by their count on a
    square-root scale, because one error must stay visible next to hundreds of hits.
    Returns (svg, copy): copy draws the same by reference to `anchor`, an id of the page.
    """
    matrix = np.asarray(matrix)
    seen = np.flatnonzero((matrix.sum(axis=0) + matrix.sum(axis=1)) > 0)
    matrix, names = matrix[np.ix_(seen, seen)], [str(names[int(i)]) for i in seen]
    labels = [shortened(name) for name in names]
    longest = max(map(len, labels), default=1)
    turned = longest > UPRIGHT_CHARACTERS
    cell, margin = 22, 14 + CHARACTER_WIDTH * longest
    top = margin + 14 if turned else 38
    errors = matrix.copy()
    np.fill_diagonal(errors, 0)
    worst, images = max(int(errors.max(initial=0)), 1), matrix.sum(axis=1)
    size = cell * len(names)
    parts = [
        element("text", "predicted", x=margin + size / 2, y=11, text_anchor="middle", class_="axis"),
        element("rect", x=margin, y=top, width=size, height=size, class_="plate"),
    ]
    for i, (name, label) in enumerate(zip(names, labels, strict=True)):
        centre = cell * i + cell / 2
        whole = [element("title", name)] if label != name else []
        x, y = (margin + centre + 4, top - 6) if turned else (margin + centre, top - 6)
        how = {"transform": f"rotate(-90 {number(x)} {number(y)})"} if turned else {"text_anchor": "middle"}
        parts.append(element("text", label, *whole, x=x, y=y, class_="tick", **how))
        parts.append(
            element("text", label, *whole, x=margin - 6, y=top + centre + 4, text_anchor="end", class_="tick")
        )
    for i, j in zip(*np.nonzero(matrix), strict=True):
        count = int(matrix[i, j])
        if i == j:
            strength, kind = 0.25 + 0.75 * (count / images[i]) ** 4, "hit"
            words = f"{names[i]}: {count:,} of {images[i]:,} right"
        else:
            strength, kind = 0.35 + 0.65 * math.sqrt(count / worst), "miss"
            words = f"{count:,} of {images[i]:,} {names[i]} taken for {names[j]}"
        left, upper = margin + cell * int(j), top + cell * int(i)
        parts.append(
            element(
                "g",
                element("title", words),
                element(
                    "rect",
                    x=left + 1,
                    y=upper + 1,
                    width=cell - 2,
                    height=cell - 2,
                    rx=2,
                    fill_opacity=strength,
                ),
                element(
                    "text",
                    str(count),
                    x=left + cell / 2,
                    y=upper + cell / 2 + 3.5,
                    text_anchor="middle",
                    # digits wider than the cell are pressed together, never over its edge
                    textLength=cell - 5 if count >= 1000 else None,
                    lengthAdjust="spacingAndGlyphs" if count >= 1000 else None,
                ),
                class_=f"cell {kind} {'strong' if strength > 0.6 else 'faint'}",
            )
        )
    width, height = margin + size + 4, top + size + 4
    svg, copy = (
        drawing(width, height, title, [content], class_="figure confusion")
        for content in (element("g", *parts, id=anchor, class_="marks"), element("use", href=f"#{anchor}"))
    )
    return svg, copy


def shortened(name: str) -> str:
    """A class's name as long as a matrix has room for."""
    return name if len(name) <= LABEL_CHARACTERS else name[: LABEL_CHARACTERS - 1] + "…"


def scatter(
    title: str,
    points: Sequence[Mapping[str, Any]],
    x_title: str,
    y_title: str,
    front: Sequence[tuple[float, float]] = (),
    log_x: bool = False,
) -> Markup:
    """Scatter plot with horizontal confidence whiskers on y.

    points : dicts x, y, low, high (y interval or None), words (tooltip), class.
    front : (x, y) of the Pareto front, drawn as steps.
    """
    xs, ys = [p["x"] for p in points], [p["y"] for p in points]
    lows = [p["low"] for p in points if p["low"] is not None] + ys
    highs = [p["high"] for p in points if p["high"] is not None] + ys
    # whiskers of hopeless runs would squeeze the interesting end: the axis follows the dots
    low, high = max(min(lows), min(ys) - 0.35 * (max(ys) - min(ys) + 0.01)), min(max(highs), 1.0)
    low, high = low - 0.04 * (high - low), min(high + 0.04 * (high - low), 1.002)
    left_x, right_x = min(xs), max(xs)
    if left_x == right_x:
        left_x, right_x = left_x * 0.9, right_x * 1.1 or 1.0
    log_x = log_x and left_x > 0 and right_x / left_x > 8
    margin = (right_x / left_x) ** 0.05 if log_x else 0.05 * (right_x - left_x)
    left_x, right_x = (left_x / margin, right_x * margin) if log_x else (left_x - margin, right_x + margin)
    x = _scale(left_x, right_x, LEFT, WIDTH - RIGHT, log_x)
    y = _scale(low, high, HEIGHT - BOTTOM, TOP)
    parts = _grid_y(y, ticks(low, min(high, 1.0)), True)
    for value in (log_ticks if log_x else ticks)(left_x, right_x):
        parts.append(_tick_x(x(value), f"{value:,.10g}"))
    parts.append(_axis_title(x_title + (" (log scale)" if log_x else "")))
    if front:
        steps = [f"{x(front[0][0]):.1f},{y(front[0][1]):.1f}"]
        for (_, before), (a, b) in itertools.pairwise(front):
            steps += [f"{x(a):.1f},{y(before):.1f}", f"{x(a):.1f},{y(b):.1f}"]
        steps.append(f"{WIDTH - RIGHT},{y(front[-1][1]):.1f}")
        parts.append(element("polyline", points=" ".join(steps), class_="front"))
    for point in points:
        a, b = x(point["x"]), y(point["y"])
        inner = [element("title", point["words"])]
        if point["low"] is not None and len(points) <= 120:
            top, bottom = y(min(point["high"], high)), y(max(point["low"], low))
            inner.append(_line(a, top, a, bottom, "whisker"))
        inner.append(element("circle", cx=a, cy=b, r=4 if len(points) <= 120 else 2.6))
        parts.append(element("g", *inner, class_=f"point {point['class']}"))
    return drawing(WIDTH, HEIGHT, f"{title}: {y_title} against {x_title}, {len(points)} runs", parts)


def _scale(low: float, high: float, start: float, end: float, log: bool = False) -> Callable[[float], float]:
    if log:
        low, high = math.log(low), math.log(high)
    span = (high - low) or 1.0

    def place(value: float) -> float:
        value = math.log(value) if log else value
        return start + (value - low) / span * (end - start)

    return place


def _line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def _grid_y(y: Callable[[float], float], values: Sequence[float], percent: bool) -> list[Markup]:
    decimals = 0
    if len(values) > 1:
        step = abs(values[1] - values[0]) * (100 if percent else 1)
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    parts = []
    for value in values:
        text = f"{value * 100:.{decimals}f} %" if percent else f"{value:.{decimals}f}"
        parts.append(_line(LEFT, y(value), WIDTH - RIGHT, y(value), "grid"))
        parts.append(element("text", text, x=LEFT - 6, y=y(value) + 4, text_anchor="end", class_="tick"))
    return parts


def _tick_x(x: float, text: str) -> Markup:
    return element("text", text, x=x, y=HEIGHT - BOTTOM + 17, text_anchor="middle", class_="tick")


def _axis_title(text: str) -> Markup:
    return element(
        "text", text, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 5, text_anchor="middle", class_="axis"
    )
