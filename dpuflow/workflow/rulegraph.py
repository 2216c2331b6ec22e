"""Picture of the rules or jobs: what `snakemake --rulegraph mermaid-js` or `--dag mermaid-js` says, as SVG.

``snakemake --rulegraph mermaid-js | python -m dpuflow.workflow.rulegraph > rulegraph.svg``

Edges that a longer path implies are left out. Boxes are coloured by the file under
rules/ that holds the rule. Equal graphs give equal bytes, whatever order they come in.
"""

import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from xml.sax.saxutils import escape

from dpuflow.base.errors import UserError
from dpuflow.xir.layout import arrange

Edge = tuple[str, str]
"""Names of its source and its target."""
RULES = Path(__file__).resolve().parent.parent.parent / "rules"
CHARACTER, PADDING, HEIGHT, GAP, ROW_GAP, MARGIN, LEGEND = 7.6, 14, 32, 22, 30, 16, 34
"""Pixels: a character of the 13 px font, then the boxes and what lies between them."""
COLOURS = {
    "dataset": ("#d7ecd9", "#1f6f3d"),
    "train": ("#d8e7f6", "#1d5e96"),
    "freeze": ("#d8e7f6", "#1d5e96"),
    "quantize": ("#e9dcf3", "#6b3a8f"),
    "compile": ("#fde4cf", "#a4480f"),
    "board": ("#fbdcdc", "#a12d2d"),
    "report": ("#e8eaed", "#4d545c"),
}
"""Stem of a rule file -> (fill, border)."""
OTHER = ("#ffffff", "#4d545c")
WORDS = {"dataset": "data", "train": "TensorFlow", "quantize": "INT8", "compile": "xmodel", "board": "board"}
"""Rule files that the legend explains."""
STYLE = """\
.edge { fill: none; stroke: #7d8791; stroke-width: 1.3; } .tip { fill: #7d8791; } text { fill: #1a2027; }
.paper { fill: #ffffff; } .words { fill: #56616d; }
@media (prefers-color-scheme: dark) { .paper { fill: #0e1318; } .words { fill: #9dabb8; } }"""


def parse(mermaid: str) -> tuple[list[str], list[Edge]]:
    """(sorted names, sorted edges (source, target) of names) of a mermaid flow chart.

    A name is a rule's, or a job's with its new wildcards; jobs of the same words are numbered.
    """
    names: dict[str, str] = {}
    uses: Counter[str] = Counter()
    for node, name in re.findall(r"^\s*(\w+)\[(.+)\]\s*$", mermaid, re.MULTILINE):
        uses[name] += 1
        names[node] = name if uses[name] == 1 else f"{name} ({uses[name]})"
    edges = re.findall(r"^\s*(\w+) --> (\w+)\s*$", mermaid, re.MULTILINE)
    if not names:
        raise UserError("no rules in this graph; expected the output of snakemake --rulegraph mermaid-js")
    return sorted(set(names.values())), sorted({(names[a], names[b]) for a, b in edges})


def rule_of(name: str) -> str:
    """The rule of a job's name: "train - model: signnet" -> "train"."""
    return name.partition(" ")[0]


def essential(edges: Sequence[Edge]) -> list[Edge]:
    """The edges of an acyclic graph that no longer path implies."""
    targets: dict[str, set[str]] = {}
    for source, target in edges:
        targets.setdefault(source, set()).add(target)

    def reaches(start: str, goal: str) -> bool:
        seen, queue = set(), [start]
        while queue:
            for node in targets.get(queue.pop(), ()):
                if node == goal:
                    return True
                if node not in seen:
                    seen.add(node)
                    queue.append(node)
        return False

    return [
        (source, target)
        for source, target in edges
        if not any(reaches(other, target) for other in targets[source] if other != target)
    ]


def groups(folder: Path | str = RULES) -> dict[str, str]:
    """Rule name -> stem of the file under rules/ that defines it."""
    found = {}
    for path in sorted(Path(folder).glob("*.smk")):
        for name in re.findall(r"^rule (\w+):", path.read_text(encoding="utf-8"), re.MULTILINE):
            found[name] = path.stem
    return found


def draw(mermaid: str, group_of: Mapping[str, str] | None = None) -> str:
    """SVG text of a mermaid rule graph; group_of : rule name -> key of COLOURS."""
    names, edges = parse(mermaid)
    group_of = groups() if group_of is None else group_of
    edges = essential(edges)
    sorter: TopologicalSorter[str] = TopologicalSorter({name: [] for name in names})
    for source, target in edges:
        sorter.add(target, source)
    widths = {name: len(name) * CHARACTER + 2 * PADDING for name in names}
    layout = arrange(list(sorter.static_order()), edges, widths, GAP)
    used = [group for group in WORDS if group in {group_of.get(rule_of(name)) for name in names}]
    legend = list(_legend(used))
    top = MARGIN + (LEGEND if used else 0)
    width = max(layout.width, 78.0 * len(used)) + 2 * MARGIN
    shift = (width - layout.width) / 2
    height = top + layout.rows * (HEIGHT + ROW_GAP) - ROW_GAP + MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="system-ui, \'DejaVu Sans\', sans-serif" '
            'font-size="13" role="img" aria-label="Rules of the workflow and what each waits for">',
            f"<style>{STYLE}</style>",
            '<rect class="paper" width="100%" height="100%" rx="8"/>',
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path class="tip" d="M0 0 L8 4 L0 8 z"/></marker></defs>',
            *legend,
            *(_edge(points, shift, top) for _, points in sorted(layout.routes)),
            *(_box(name, group_of, layout.centres[name], widths[name], shift, top) for name in names),
            "</svg>\n",
        ]
    )


def _legend(used):
    x = MARGIN
    for group in used:
        fill, border = COLOURS[group]
        yield f'<rect x="{x}" y="{MARGIN}" width="12" height="12" rx="3" fill="{fill}" stroke="{border}"/>'
        yield f'<text class="words" x="{x + 18}" y="{MARGIN + 11}" font-size="12">{WORDS[group]}</text>'
        x += 36 + 7 * len(WORDS[group])


def _box(name, group_of, centre, width, shift, top):
    fill, border = COLOURS.get(group_of.get(rule_of(name)), OTHER)
    x, y = centre[0] + shift, top + centre[1] * (HEIGHT + ROW_GAP)
    return (
        f'<rect x="{x - width / 2:.1f}" y="{y}" width="{width:.1f}" height="{HEIGHT}" rx="7" fill="{fill}" '
        f'stroke="{border}"/><text x="{x:.1f}" y="{y + 21}" text-anchor="middle">{escape(name)}</text>'
    )


def _edge(points, shift, top):
    """Curve from under the source, straight past each row between, to above the target."""
    (x, row), *rest = [(x + shift, row) for x, row in points]
    y = top + row * (HEIGHT + ROW_GAP) + HEIGHT
    path = [f"M{x:.1f} {y}"]
    for next_x, next_row in rest:
        below = top + next_row * (HEIGHT + ROW_GAP)
        bend = (y + below) / 2
        path.append(f"C{x:.1f} {bend:.1f} {next_x:.1f} {bend:.1f} {next_x:.1f} {below}")
        if (next_x, next_row) != rest[-1]:
            path.append(f"V{below + HEIGHT}")
        x, y = next_x, below + HEIGHT
    return f'<path class="edge" d="{" ".join(path)}" marker-end="url(#tip)"/>'


if __name__ == "__main__":
    try:
        print(draw(sys.stdin.read()), end="")
    except UserError as error:
        sys.exit(f"error: {error}")
