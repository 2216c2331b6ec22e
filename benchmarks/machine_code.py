"""Estimated time of networks on real boards against what was published, and our code against the vendor's.

    python benchmarks/machine_code.py [--figures FILE] [--vendor FOLDER] [--only NAME ...] [--no-fit]

FILE holds published measurements (../shared/facts/measured-boards.json), FOLDER vendor-compiled programs
(../shared/golden/wild). Networks are built with weights of ones, folded and compiled. Estimates come from
the layers before compiling, from our machine code and, where FOLDER has the network, from the vendor's code.
Exit status 1 if an error is beyond its goal.
"""

import json
import statistics
import sys
from pathlib import Path

from measuring import REPO, Goals, parser_of, progress, table

SHARED = REPO.parent / "shared"
VENDOR = {"mobilenet_v2_1.0_224": "mobilenetv2_224_pt_b4096_3.5.xmodel"}
"""Vendor-compiled programs of published networks."""
WAYS = ("the layers", "our code", "the vendor's code")
FIGURES = ("one thread", "many threads", "Python call")
MEDIAN, GREATEST = 0.12, 0.30


def estimated(kind, figures):
    """The figure of an estimate that a published one is compared with, in frames per second or calls."""
    frames = figures["frames_per_second"]
    return {
        "one thread": frames["one_thread"],
        "many threads": frames["board"],
        "Python call": 1e6 / figures["latency_us"],
    }[kind]


def published(entry):
    """{(board, figure): frames or calls per second} of an entry of the published figures."""
    found = {}
    for board, (one, many) in entry["fps"].items():
        found |= {(board, "one thread"): one, (board, "many threads"): many}
    if "kv260_ms" in entry:
        found["kv260", "Python call"] = 1e3 / entry["kv260_ms"]
    return found


def of_code(programs, network, target):
    """Figures of machine code on a target, as `compile.json` has them."""
    from dpuflow.dpuczdx8g.cost_model import handed_over
    from dpuflow.dpuczdx8g.isa.cycles import schedule
    from dpuflow.dpuczdx8g.timing import TIMING, figures

    timing = TIMING.on(target.board)
    clock, cores = target.board.clock_mhz, target.board.cores
    alone, shared = (sum(schedule(p, timing, n).cycles for p in programs) / clock for n in (1, cores))
    return figures(alone, shared, cores, *handed_over(network.network), jobs=len(programs))


def one_network(name, entry, vendor, fit):
    """(estimates: {way: {(board, figure): value}}, for the fit frames by each choice: {way: ...})."""
    import board_fit
    import board_networks

    from dpuflow.device.targets import get_target
    from dpuflow.dpuczdx8g.cost_model import estimate, handed_over
    from dpuflow.dpuczdx8g.timing import HOST
    from dpuflow.xir import Graph

    network = board_networks.quantized(board_networks.maker(name, entry))
    targets = {board: get_target(board) for board in entry["fps"]}
    codes = {WAYS[1]: board_networks.our_code(network, next(iter(targets.values())))}
    path = vendor / VENDOR.get(name, "none")
    if path.exists():
        codes[WAYS[2]] = board_networks.code_of(Graph.load(path))
    found = {way: {} for way in WAYS}
    for board, target in targets.items():
        figures = {WAYS[0]: estimate(network, target)}
        figures |= {way: of_code(code, network, target) for way, code in codes.items()}
        for way, values in figures.items():
            found[way] |= {(board, kind): estimated(kind, values) for kind in FIGURES}
    boards = {board: target.board for board, target in targets.items()}
    fetch_us = HOST.fetching(*handed_over(network.network)[1:])
    choices = {way: board_fit.frames_of_many(code, boards, fetch_us) for way, code in codes.items() if fit}
    if fit:
        choices[WAYS[0]] = board_fit.frames_by_layers(network.network, targets)
    return found, choices


def cell(value, wanted):
    """An estimate and how far it is off."""
    return f"{value:,.1f} ({100 * (value / wanted - 1):+.0f} %)" if value else ""


def off(value, wanted):
    """Size of a relative error."""
    return abs(value / wanted - 1)


def compared(results, figures, kind):
    """Markdown table of one kind of figure."""
    rows = []
    for name, ways in results.items():
        for (board, what), wanted in published(figures[name]).items():
            if what == kind:
                cells = (cell(ways[way].get((board, kind)), wanted) for way in WAYS)
                rows.append((name, board, f"{wanted:,.1f}", *cells))
    return table(("network", "board", "published", *WAYS), rows)


def errors(results, figures, way):
    """Sizes of the relative errors of one way, all boards and figures."""
    return [
        off(ways[way][key], wanted)
        for name, ways in results.items()
        for key, wanted in published(figures[name]).items()
        if key in ways[way]
    ]


def against_the_vendor(folder):
    """Markdown table: cycles of vendor-compiled programs and of ours for the same graphs; the ratios."""
    import board_networks

    from dpuflow.base.errors import UserError
    from dpuflow.dpuczdx8g.isa.cycles import schedule
    from dpuflow.dpuczdx8g.native.compile import compile_graph
    from dpuflow.xir import Graph

    rows, ratios = [], []
    for path in sorted(folder.glob("*.xmodel")):
        graph = Graph.load(path)
        try:
            codes = [board_networks.code_of(graph)]
        except UserError:
            continue  # not compiled, or for another instruction set
        try:
            compile_graph(graph)
            codes.append(board_networks.code_of(graph))
        except UserError as error:
            progress(f"{path.name} is not compiled again: {error}")
        cycles = [sum(schedule(p).cycles for p in code) for code in codes]
        counts = [f"{sum(map(len, code)):,}" for code in codes]
        ratio = cycles[1] / cycles[0] if len(cycles) > 1 else None
        ratios += [ratio] if ratio else []
        ours = (counts[1], f"{cycles[1]:,.0f}", f"{ratio:.2f}") if ratio else ("refused", "", "")
        rows.append((path.stem, counts[0], f"{cycles[0]:,.0f}", *ours))
    headers = ("program", "vendor's instructions", "cycles", "our instructions", "cycles", "ratio")
    return table(headers, rows), ratios


def main():
    """Measure and print the section; returns the exit status."""
    parser = parser_of(__doc__, repeats=1)
    parser.add_argument("--figures", type=Path, default=SHARED / "facts" / "measured-boards.json")
    parser.add_argument("--vendor", type=Path, default=SHARED / "golden" / "wild")
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--no-fit", action="store_true", help="without leaving networks out")
    options = parser.parse_args()
    print("## Machine code and its time on boards\n")
    if not options.figures.exists():
        print(f"No published figures at hand ({options.figures.name}; --figures names the file).\n")
        return 0
    import board_fit
    import board_networks

    figures = json.loads(options.figures.read_text(encoding="utf-8"))
    names = options.only or (["mobilenet_v1_0.25_128"] if options.quick else list(figures))
    names = [name for name in names if board_networks.maker(name, figures[name])]
    fit = not options.no_fit and len(names) > 2
    results, choices = {}, {}
    for name in names:
        progress(f"{name} ...")
        results[name], choices[name] = one_network(name, figures[name], options.vendor, fit)
    goals = Goals(not options.quick)
    for kind, unit in zip(FIGURES, ("frames/s", "frames/s", "calls/s"), strict=True):
        print(f"**{kind}**, {unit} (error of the estimate)\n\n{compared(results, figures, kind)}")
    for way in WAYS:
        sizes = errors(results, figures, way)
        if sizes:
            judge(goals, f"estimates from {way}", sizes)
    apart = [
        off(ways[WAYS[1]][key], wanted) for ways in results.values() for key, wanted in ways[WAYS[0]].items()
    ]
    judge(goals, "the two models against each other, our code and the layers", apart)
    if fit:
        many = {name: {board: fps[1] for board, fps in figures[name]["fps"].items()} for name in names}
        print("**Left out**: many threads; the numbers chosen anew without the network itself\n")
        for ways, chosen in ((WAYS[:1], board_fit.of_layers), (WAYS[1:], board_fit.of_code)):
            frames = {(name, w): made[w] for name, made in choices.items() for w in ways if w in made}
            left_out = board_fit.leave_one_out(frames, many, chosen)
            boards = list(next(iter(many.values())))
            rows = [
                (*key, *(f"{100 * found[b]:+.0f} %" if b in found else "" for b in boards))
                for key, found in left_out.items()
            ]
            print(table(("network", "estimate from", *boards), rows))
            sizes = [abs(e) for found in left_out.values() for e in found.values()]
            judge(goals, f"networks left out, {' and '.join(ways)}", sizes)
    if options.vendor.exists() and not options.quick:
        text, ratios = against_the_vendor(options.vendor)
        print(f"**The vendor's programs and their graphs compiled again** (cycles are estimates)\n\n{text}")
        middle = statistics.median(ratios)
        goals.add(
            f"our code takes {max(ratios):.3f} times the vendor's cycles at most, {middle:.2f} in the median"
            " (goals 1.00 and 0.95)",
            max(ratios) <= 1.0 and middle <= 0.95,
        )
    return goals.finish()


def judge(goals, what, sizes):
    """Note the goals of a list of errors."""
    middle, greatest = statistics.median(sizes), max(sizes)
    goals.add(
        f"{what}: median error {100 * middle:.1f} % of {len(sizes)} figures, greatest {100 * greatest:.0f} %"
        f" (goals {100 * MEDIAN:.0f} % and {100 * GREATEST:.0f} %)",
        middle <= MEDIAN and greatest <= GREATEST,
    )


if __name__ == "__main__":
    sys.exit(main())
