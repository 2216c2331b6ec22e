"""Run all benchmarks and write benchmarks/results.md (`make bench`).

    python benchmarks/run_all.py [--only csv_reading ...] [--data FOLDER] [--output FILE] [--quick]

First the network to measure is made, if it is not there: on the real Sign Language MNIST if
--data names its folder or ../shared holds it, else on the embedded data. Then each script runs on
its own; what it prints becomes a section of the page. With --only the other sections of an
existing page stay. Exit status 1 if a goal was missed or a benchmark failed.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import subject
from measuring import REPO, goal_lines, progress, table

FOLDER = Path(__file__).resolve().parent
SHARED = REPO.parent / "shared"
SHARED_DATA = SHARED / "datasets" / "sign_mnist"
TRAINED = SHARED / "models" / "efficientnet_lite0.h5", SHARED / "datasets" / "imagenet_sample_224.zip"
"""A trained network of real size and its pictures."""
PACKAGES = ("numpy", "pandas", "tensorflow", "tf_keras", "onnxruntime", "snakemake")
MARK = "<!-- {} -->"
"""Stands before each section, so that one of them can be replaced."""


@dataclass(frozen=True)
class Benchmark:
    """A script of this folder.

    arguments : function of the Subject -> its command line. quick : whether it knows --quick.
    """

    name: str
    arguments: object = lambda chosen: []
    quick: bool = True

    def command(self, quick):
        """Its command line."""
        words = ["--quick"] if quick else list(map(str, self.arguments(subject.find())))
        return [sys.executable, str(FOLDER / f"{self.name}.py"), *words]


def trained(network, pictures):
    """Arguments for `real_size_quantizer.py` to measure a trained network too; none where there is none."""
    there = network.is_file() and pictures.is_file()
    return ["--trained", network, "--data", pictures] if there else []


BENCHMARKS = (
    Benchmark("csv_reading"),
    Benchmark("pictures"),
    Benchmark("evaluation"),
    Benchmark(
        "emulator",
        lambda chosen: ["--xmodel", chosen.xmodel, "--frozen", chosen.model / "frozen_graph.pb"],
    ),
    Benchmark("real_size_emulator"),
    Benchmark("real_size_quantizer", lambda chosen: trained(*TRAINED)),
    Benchmark("quantizer_cost"),
    Benchmark("quantizer", quick=False),
    Benchmark("isa", lambda chosen: [chosen.model / "reference" / "quantized_model.h5"]),
    Benchmark("machine_code"),
    Benchmark("training"),
    Benchmark("time_to_accuracy"),
    Benchmark("cold_run"),
    Benchmark("whole_chain"),
    Benchmark("late_edit"),
    Benchmark("job_start", quick=False),
    Benchmark("quantizer_search", lambda chosen: [chosen.model], quick=False),
    Benchmark("dag_scaling", quick=False),
)

PARTS = {
    "real_size": ("real_size_emulator", "real_size_quantizer"),
    **{benchmark.name: (benchmark.name,) for benchmark in BENCHMARKS},
}
"""What `--only` takes -> the benchmarks that are run."""


def prepare(data):
    """Make the artifacts that are measured: runs Snakemake, which does only what is missing.

    data : folder with the real data set, or None. Exits with a message if the run fails.
    """
    folder = Path(data) if data else SHARED_DATA
    if data and not folder.is_dir():
        sys.exit(f"error: --data {data}: no such folder")
    chosen = subject.Subject("sign_mnist" if folder.is_dir() else "synthetic_signs")
    progress(f"preparing {chosen.title}")
    config = [subject.CONFIGS[chosen.dataset][0]]
    with tempfile.TemporaryDirectory() as name:
        if data:
            own = Path(name) / "data.yaml"
            source = f"{{kind: files, folder: '{folder.resolve()}'}}"
            own.write_text(f"datasets: {{sign_mnist: {{source: {source}}}}}\n")
            config.append(str(own))
        command = [sys.executable, "-m", "snakemake", str(chosen.goal.relative_to(REPO)), "--quiet", "all"]
        command += ["--cores", str(len(os.sched_getaffinity(0))), "--configfile", *config]
        if subprocess.run(command, cwd=REPO).returncode:
            sys.exit("error: the run that is to be measured failed; see above and logs/")


def run(benchmark, quick):
    """(section, failed) of one benchmark. One that prints no Markdown is shown as it is."""
    progress(f"=== {benchmark.name}")
    done = subprocess.run(benchmark.command(quick), cwd=REPO, stdout=subprocess.PIPE, text=True)
    section = done.stdout.strip()
    if not section.startswith("## "):
        section = f"## {benchmark.name}\n\n```text\n{section}\n```"
    section += f"\n\nMeasured on {processor()}."  # parts that are run alone may be of several machines
    failed = done.returncode != 0
    if failed and not any("MISSED" in line for line in section.splitlines()):
        section += f"\n\n- MISSED: {benchmark.name}.py failed with exit status {done.returncode}"
    return section, failed


def machine():
    """Markdown table: processor, cores, memory, system and package versions, as of the part that ran last."""
    rows = [
        ("processor", processor()),
        ("cores", len(os.sched_getaffinity(0))),
        ("memory", f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"),
        ("system", f"{platform.system()} {platform.release()}, Python {platform.python_version()}"),
        ("packages", ", ".join(f"{name} {installed(name)}" for name in PACKAGES)),
    ]
    return table(("machine", ""), rows).replace("---:", "---")


def processor():
    """The processor's name, with family and model where the name alone says little."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = dict(re.findall(r"^([\w ]+?)\s*: (.*)$", text.split("\n\n")[0], re.MULTILINE))
    name = found.get("model name", platform.machine())
    return f"{name} (family {found.get('cpu family', '?')}, model {found.get('model', '?')})"


def installed(package):
    """Version of a package, or 'absent'."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def sections_of(page):
    """{name: section} of a page that `page_of` wrote."""
    parts = re.split(r"^<!-- (\w+) -->\n", page, flags=re.MULTILINE)[1:]
    return {name: text.strip() for name, text in zip(parts[::2], parts[1::2], strict=True)}


def page_of(sections, note=""):
    """The whole page from {name: section}, in the order of BENCHMARKS."""
    order = [benchmark.name for benchmark in BENCHMARKS if benchmark.name in sections]
    goals = [f"{line} ({name})" for name in order for line in goal_lines(sections[name])]
    met = sum(line.startswith("- met: ") for line in goals)
    head = [
        "# Benchmarks\n",
        f"Written by `make bench` (benchmarks/run_all.py).{note} What the "
        "figures mean: docs/performance.md.\n",
        machine(),
        "## Goals\n",
        f"{met} of {len(goals)} met, {len(goals) - met} missed.\n" if not note else "Not judged.\n",
        "\n".join(goals) + "\n",
    ]
    body = [f"{MARK.format(name)}\n{sections[name]}\n" for name in order]
    return "\n".join(head + body)


def main():
    """Run what was asked for and write the page; returns the exit status."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="NAME", help=", ".join(PARTS))
    parser.add_argument("--data", help="folder of the real Sign Language MNIST")
    parser.add_argument("--output", type=Path, default=FOLDER / "results.md")
    parser.add_argument("--quick", action="store_true", help="small sizes: only shows that all of it works")
    options = parser.parse_args()
    if not options.quick:
        prepare(options.data)
    sections, failures = {}, 0
    chosen = {name for part in options.only or PARTS for name in PARTS[part]}
    if options.output.exists() and options.only:
        sections = sections_of(options.output.read_text())
    note = " **Small sizes (--quick): the figures say nothing.**" if options.quick else ""
    for benchmark in BENCHMARKS:
        if benchmark.name in chosen and (benchmark.quick or not options.quick):
            sections[benchmark.name], failed = run(benchmark, options.quick)
            failures += failed
            # all take the better part of an hour: what is measured stays when the rest is stopped
            options.output.write_text(page_of(sections, note))
    progress(f"{options.output} is written; {failures} of the benchmarks run failed or missed a goal")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
