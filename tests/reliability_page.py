"""docs/reliability.md from what the tests tried and how it ended; tests/fault_record.py collects that."""

import importlib
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent

GROUPS = {
    "processes": "Processes that are killed",
    "disk": "Disks that are full or read-only",
    "data": "Data sets: CSV, zip, gz",
    "models": "Models: H5, frozen graphs, quantized models",
    "xmodel": "xmodel files",
    "configuration": "Configuration",
    "board": "Boards and their answers",
    "vendor": "The vendor's tools",
    "results": "Records, reports, pictures",
}
"""Group of a fault marker -> its heading, in the page's order."""

FURTHER = {"rules/staleness_page": "What reruns after which change"}
"""Module below tests/ whose markdown() is a further section -> its heading."""

FUZZING = "Generated and damaged input: it is read or refused with a message; no crash, no hang."

INTRODUCTION = """\
# Reliability

What was broken on purpose, and what became of it. Every line is a test; *survived* means that it ended as the
line says:

- **message**: one sentence that names file, row or key and what to do; exit status other than 0; what lies
  under a final name is whole
- **refused**: the same, said by the part that reads the file or the answer
- **resume**: a plain rerun finishes, with the same bytes
- **right**: the result is right all the same

Never a wrong number, never a stale artifact that looks fresh.

This page is written by `make reliability` from the results of one run of those tests.
"""


@dataclass(frozen=True)
class Fault:
    """What a marked test breaks, and how it has to end."""

    group: str
    what: str
    end: str


def lines(faults, fuzzed):
    """The lines that the page has to have, sorted, without how a run ended.

    faults : the Fault of each test. fuzzed : (parser, inputs) of each fuzzing test.
    """
    return sorted(
        [fault_line(fault, count) for fault, count in Counter(faults).items()]
        + [f"| {parser} | {inputs:,} |" for parser, inputs in inputs_by_parser(fuzzed).items()]
    )


def page(faults, fuzzed, outcomes):
    """The whole page. faults and fuzzed as of `lines`, by test; outcomes : test -> (end, reason)."""
    ends = {test: outcomes.get(test, ("failed", "did not run")) for test in (*faults, *fuzzed)}
    parts = [INTRODUCTION, totals(faults, fuzzed, ends)]
    for name in GROUPS:
        if tests := {test: fault for test, fault in faults.items() if fault.group == name}:
            parts.append(group(name, tests, ends))
    if fuzzed:
        parts.append(fuzzing(fuzzed, ends))
    return "\n".join([*parts, *further()])


def inputs_by_parser(fuzzed):
    inputs = Counter()
    for parser, count in fuzzed:
        inputs[parser] += count
    return dict(sorted(inputs.items()))


def counted(tests, ends):
    """How many tests ended how."""
    return Counter(ends[test][0] for test in tests)


def totals(faults, fuzzed, ends):
    """The table of groups, and why tests were skipped."""
    text = ["| | faults tried | survived | skipped |", "| --- | ---: | ---: | ---: |"]
    for name, heading in GROUPS.items():
        if found := counted((test for test, fault in faults.items() if fault.group == name), ends):
            text.append(f"| {heading} | {numbers(found)} |")
    text.append(f"| **all** | {numbers(counted(faults, ends))} |")
    if fuzzed:
        inputs = inputs_by_parser(fuzzed.values())
        text += ["", f"Fuzzed parsers: {len(inputs)}, with {sum(inputs.values()):,} inputs."]
    reasons = sorted({reason for end, reason in ends.values() if end == "skipped"})
    if reasons:
        text += ["", "Skipped in this run:", "", *(f"- {reason}" for reason in reasons)]
    return "\n".join(text) + "\n"


def group(name, tests, ends):
    """A group's heading and table. tests : test -> Fault."""
    by_fault = {}
    for test, fault in tests.items():
        by_fault.setdefault(fault, []).append(test)
    text = [f"## {GROUPS[name]}", "", sentence(counted(tests, ends)), ""]
    text += ["| fault | end | cases | |", "| --- | --- | ---: | --- |"]
    for fault in sorted(by_fault, key=lambda fault: (fault.end, fault.what)):
        found = counted(by_fault[fault], ends)
        words = ", ".join(f"{n} {end}" if len(found) > 1 else end for end, n in sorted(found.items()))
        text.append(f"{fault_line(fault, len(by_fault[fault]))} {words} |")
    return "\n".join(text) + "\n"


def fuzzing(fuzzed, ends):
    """The section on generated input."""
    text = ["## Fuzzed parsers", "", FUZZING, "", "| parser | inputs |", "| --- | ---: |"]
    text += [f"| {parser} | {inputs:,} |" for parser, inputs in inputs_by_parser(fuzzed.values()).items()]
    failed = sorted(test for test in fuzzed if ends[test][0] == "failed")
    text += ["", *(f"- failed: {test}" for test in failed)] if failed else []
    return "\n".join(text) + "\n"


def fault_line(fault, count):
    """A table's line without the outcome."""
    return f"| {cell(fault.what)} | {cell(fault.end)} | {count} |"


def cell(text):
    return text.replace("|", "&#124;").replace("\n", " ")


def numbers(found):
    return f"{found.total()} | {found['survived']} | {found['skipped']}"


def sentence(found):
    words = f"{found.total()} faults tried, {found['survived']} survived"
    for end in ("skipped", "failed"):
        words += f", {found[end]} {end}" if found[end] else ""
    return words + "."


def further():
    """The other modules' sections."""
    for name, heading in FURTHER.items():
        path = HERE / name
        if str(path.parent) not in sys.path:
            sys.path.insert(0, str(path.parent))
        yield f"## {heading}\n\n{importlib.import_module(path.name).markdown()}"
