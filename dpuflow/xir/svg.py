"""Picture of a graph: one box per op, coloured by the device of its subgraph."""

from xml.sax.saxutils import escape

from dpuflow.xir.describe import element_type, fix_text, shape_text
from dpuflow.xir.graph import Graph
from dpuflow.xir.layout import arrange

COLOURS = {
    "USER": ("#e8eaed", "#5f6368"),
    "DPU": ("#fde3cf", "#b3541e"),
    "CPU": ("#d5e5f7", "#2b5d91"),
    None: ("#ffffff", "#444444"),
}
"""Device -> (fill, border)."""

CHARACTER = 6.8
"""Width of a character of the 11 px monospace font."""
LINE, PADDING, GAP, ROW_GAP, MARGIN = 15, 8, 24, 34, 20
LONGEST = 44
LEGEND = 30


def draw(graph: Graph) -> str:
    """SVG text. Constants are not boxes of their own: they stand in the op that reads them."""
    constants = {op.name: op for op in graph.ops if op.type in ("const", "const-fix")}
    # the fake quantisation of a constant belongs to it
    for op in graph.ops:
        if op.type == "fix" and op.input_names and all(name in constants for name in op.input_names):
            constants[op.name] = op
    ops = {op.name: op for op in graph.ops if op.name not in constants}
    devices = {name: s.device for s in graph.subgraphs() for name in s.op_names}
    labels = {name: _label(op, constants) for name, op in ops.items()}
    widths = {name: max(map(len, label)) * CHARACTER + 2 * PADDING for name, label in labels.items()}
    edges = [(source, op.name) for op in ops.values() for source in op.input_names if source in ops]
    layout = arrange(list(ops), list(dict.fromkeys(edges)), widths, GAP)
    heights = _row_heights(layout, labels)
    tops = [LEGEND + MARGIN]
    for height in heights:
        tops.append(tops[-1] + height + ROW_GAP)
    parts = [_edge(route, tops, heights) for _, route in layout.routes]
    for name in ops:
        x, row = layout.centres[name]
        parts.append(_box(ops[name], labels[name], devices.get(name), x, tops[row], widths[name]))
    width, height = max(layout.width, 420) + 2 * MARGIN, tops[-1] - ROW_GAP + MARGIN
    return "\n".join([*_head(graph, width, height), *_legend(graph, devices), *parts, "</svg>"]) + "\n"


def _label(op, constants):
    lines = [_abridge(op.name), _abridge(_kind(op))]
    for argument, names in op.inputs.items():
        for name in names:
            if name in constants:
                constant = constants[name]
                fix = fix_text(constant)
                tail = f" fix {fix}" if fix != "-" else ""
                lines.append(f"{argument} {shape_text(constant.tensor.shape)}{tail}")
    fix = fix_text(op)
    tail = f" fix {fix}" if fix != "-" else ""
    lines.append(f"{shape_text(op.tensor.shape)} {element_type(op.tensor)}{tail}")
    return lines


def _kind(op):
    parts = [op.type]
    if op.attrs.kind("kernel") == "int32_vec":
        parts.append(shape_text(op.attrs["kernel"]))
    if op.attrs.kind("stride") == "int32_vec" and op.attrs["stride"] != [1, 1]:
        parts.append(f"/{shape_text(op.attrs['stride'])}")
    if op.type in ("pool-fix", "eltwise-fix") and "type" in op.attrs:
        parts.append(str(op.attrs["type"]))
    if op.attrs.get("nonlinear", "NONE") not in ("", "NONE"):
        parts.append(str(op.attrs["nonlinear"]))
    return " ".join(parts)


def _abridge(text):
    if len(text) <= LONGEST:
        return text
    half = (LONGEST - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def _row_heights(layout, labels):
    heights = [0] * layout.rows
    for name, label in labels.items():
        row = layout.centres[name][1]
        heights[row] = max(heights[row], len(label) * LINE + PADDING)
    return heights


def _head(graph, width, height):
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="monospace" font-size="11">'
    )
    yield f"<title>{_text(graph.name)}</title>"
    yield '<rect width="100%" height="100%" fill="#ffffff"/>'
    yield (
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#777777"/></marker></defs>'
    )


def _legend(graph, devices):
    yield f'<text x="{MARGIN}" y="24" font-weight="bold">{_text(_abridge(graph.name))}</text>'
    x = MARGIN + (len(_abridge(graph.name)) + 2) * CHARACTER
    for device in sorted({str(device) for device in devices.values() if device is not None}):
        fill, border = _colours(device)
        yield f'<rect x="{x:.1f}" y="14" width="12" height="12" fill="{fill}" stroke="{border}"/>'
        yield f'<text x="{x + 17:.1f}" y="24">{_text(device)}</text>'
        x += 30 + len(device) * CHARACTER


def _box(op, label, device, x, top, width):
    fill, border = _colours(device)
    left, height = x + MARGIN - width / 2, len(label) * LINE + PADDING
    lines = [
        f'<g><title>{_text(op.name)}</title><rect x="{left:.1f}" y="{top}" width="{width:.1f}" '
        f'height="{height}" rx="4" fill="{fill}" stroke="{border}"/>'
    ]
    for i, line in enumerate(label):
        weight = ' font-weight="bold"' if i == 0 else ""
        y = top + PADDING / 2 + LINE * i + 11
        lines.append(
            f'<text x="{x + MARGIN:.1f}" y="{y:.1f}" text-anchor="middle"{weight}>{_text(line)}</text>'
        )
    return "\n".join([*lines, "</g>"])


def _edge(route, tops, heights):
    """Curve from below the source, past a point in each row between, to above the target."""
    points = [(x + MARGIN, row) for x, row in route]
    x, row = points[0]
    y = tops[row] + heights[row]
    path = [f"M{x:.1f} {y}"]
    for next_x, next_row in points[1:]:
        next_y = tops[next_row]
        middle = (y + next_y) / 2
        path.append(f"C{x:.1f} {middle:.1f} {next_x:.1f} {middle:.1f} {next_x:.1f} {next_y}")
        x, y = next_x, next_y
        if (next_x, next_row) != points[-1]:
            y = next_y + heights[next_row]
            path.append(f"L{x:.1f} {y}")
    return f'<path d="{" ".join(path)}" fill="none" stroke="#777777" marker-end="url(#arrow)"/>'


def _colours(device):
    return COLOURS.get(device if isinstance(device, str) else None, COLOURS[None])


def _text(text):
    """Escaped, without the control characters that XML cannot hold."""
    return escape("".join(c if c.isprintable() else "?" for c in text))
