"""What reruns after which change: exactly what depends on it.

The matrix (staleness_matrix.py, staleness_files.py) is held against dry runs of a finished
workflow in which every rule has a job; its results are pretended. A few real runs follow.
"""

import copy
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

import every_rule
import pytest
import staleness_files as files
import staleness_matrix as matrix
import yaml
from planner import Planner, with_all_below
from workflow_copy import TINY, Workflow, copy_of

from dpuflow.base.files import sha256

pytestmark = pytest.mark.rules
REPO = files.REPO


@dataclass(frozen=True)
class Edit:
    """Some more bytes at the end of files; other files are made."""

    paths: tuple

    @property
    def after_parsing(self):
        """Whether Snakemake reads these files only when the rule files have been read."""
        folders = ("scripts/", "dpuflow/", "envs/")
        return all(path.startswith(folders) for path in self.paths)


def with_change(config, changes):
    """A copy of `config` with other values at dotted paths; missing mappings are made."""
    config = copy.deepcopy(config)
    for path, value in changes.items():
        *parents, last = path.split(".")
        node = config
        for key in parents:
            if isinstance(node, dict) and not isinstance(node.get(key, {}), dict | list):
                node[key] = {}
            node = node[int(key)] if isinstance(node, list) else node.setdefault(key, {})
        node[int(last) if isinstance(node, list) else last] = value
    return config


def jobs_of(graph, text):
    """The jobs of a graph that "rule wildcard=value; ..." names; each part must name some."""
    found = set()
    for part in filter(None, text.split("; ")):
        rule, *pairs = part.split()
        wildcards = dict(pair.split("=") for pair in pairs)
        jobs = {job for job in graph if job.matches(rule, wildcards)}
        assert jobs, f"no job is called {part!r}"
        found |= jobs
    return found


def named(jobs):
    """Jobs as sorted texts, without those that only collect files."""
    return sorted(
        " ".join([job.rule, *(f"{name}={value}" for name, value in job.wildcards)])
        for job in jobs
        if job.rule not in every_rule.NO_JOBS_OF_THEIR_OWN
    )


@pytest.fixture(scope="session")
def pretended(tmp_path_factory):
    """(planner, graph) of the workflow with every rule, after a run that is pretended."""
    folder = copy_of(REPO, tmp_path_factory.mktemp("matrix") / "flow")
    every_rule.add_own_files(folder)
    planner = Planner(folder, every_rule.CONFIG, every_rule.TARGETS)
    graph = planner.pretend_finished()
    yield planner, graph
    planner.close()


@pytest.fixture(scope="session")
def graph_after(request, pretended, tmp_path_factory):
    """Function: the graph after a change. All that the chosen tests need are tried at once, on two cores."""
    planner, _ = pretended
    planners = SimpleQueue()
    twin = planner.twin(tmp_path_factory.mktemp("matrix") / "twin")
    for one in (planner, twin):
        planners.put(one)

    def tried(change):
        one = planners.get()
        try:
            return after(one, change)
        except AssertionError as error:
            return error
        finally:
            planners.put(one)

    specifications = (getattr(item, "callspec", None) for item in request.session.items)
    values = (one.params.get("change") for one in specifications if one)
    # other tests' parameters may be called so, too
    changes = [value for value in values if isinstance(value, (matrix.Row, Edit))]
    with ThreadPoolExecutor(2) as pool:
        graphs = dict(zip(map(id, changes), pool.map(tried, changes), strict=True))
    twin.close()

    def look_up(change):
        if isinstance(graphs[id(change)], Exception):
            raise graphs[id(change)]
        return graphs[id(change)]

    return look_up


def after(planner, change):
    """The graph after a Row or an Edit, which is undone again."""
    if isinstance(change, matrix.Row):
        return planner.graph(config=with_change(planner.config, change.change))
    before = []
    for path in (planner.folder / name for name in change.paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        before.append((path, path.read_bytes() if path.exists() else None, path.exists() and path.stat()))
        with open(path, "ab") as stream:
            stream.write(b"\n# changed\n")
    try:
        return planner.graph(parsed=change.after_parsing)
    finally:
        for path, content, facts in before:
            if content is None:
                path.unlink()
            else:
                path.write_bytes(content)
                os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def stale(graph):
    return {job for job, facts in graph.items() if facts.would_run}


def test_every_rule_has_a_job(pretended):
    rules = set()
    for path in (REPO / "rules").glob("*.smk"):
        rules |= set(re.findall(r"^rule (\w+):", path.read_text(), re.MULTILINE))
    assert rules == {job.rule for job in pretended[1]} - {"all", "bundles", "sweep"}


def test_the_flow_of_files_is_the_one_of_the_table(pretended):
    _, graph = pretended
    writer = {path: job.rule for job, facts in graph.items() for path in facts.output}
    flow = {rule: set() for rule in writer.values()}
    for job, facts in graph.items():
        for path in facts.input:
            if path in writer and job.rule not in every_rule.NO_JOBS_OF_THEIR_OWN:
                flow[writer[path]].add(job.rule)
    assert flow == {rule: matrix.readers(rule) for rule in flow}


def test_every_key_has_a_row():
    text = (REPO / "config/README.md").read_text()
    keys = {
        key for pair in re.findall(r"^\| `([^`]+)` \||^## `(\w+)`", text, re.MULTILINE) for key in pair if key
    }
    rows = {row.key for row in matrix.ROWS}
    assert rows <= keys, "rows of keys that the schema does not have"
    below = {key for key in keys for row in rows if re.match(re.escape(key) + r"[.\[]", row)}
    assert keys - rows - below == set()


def test_every_file_has_a_row(repo):
    listed = {
        "scripts": {f"{name}.py" for name in files.SCRIPTS},
        "envs": {f"{name}.yaml" for name in files.ENVIRONMENTS},
        "dpuflow/foreign/board": set(files.APPLICATION),
        "dpuflow/foreign/vitis_ai": set(files.CONTAINER_PROGRAMS),
    }
    for folder, names in listed.items():
        assert {path.name for path in (repo / folder).iterdir() if path.is_file()} == names
    data = {path for path in files.package_files(repo) if not path.endswith(".py")}
    assert data <= files.DATA_OF.keys(), "files of dpuflow that no row says the reader of"


KEY_IDS = [f"{row.key}-{'-'.join(row.change)}" for row in matrix.ROWS]


@pytest.mark.parametrize("change", matrix.ROWS, ids=KEY_IDS)
def test_a_changed_key(pretended, graph_after, change):
    graph = graph_after(change) if change.new_jobs else pretended[1]
    direct = "; ".join([matrix.PICTURES, *([matrix.SHOWN] if change.shown else []), change.reruns])
    assert named(stale(graph_after(change))) == named(with_all_below(graph, jobs_of(graph, direct)))


FILES = {
    **{f"scripts/{name}.py": rules for name, rules in files.SCRIPTS.items()},
    **{f"envs/{name}.yaml": rules for name, rules in files.ENVIRONMENTS.items()},
    **{path: rules for path, rules in files.OTHERS.items() if "*" not in path},
    **{f"rules/{path.name}": files.OTHERS["rules/*.smk"] for path in sorted(REPO.glob("rules/*.smk"))},
    **{path: rules for path, rules in files.modules(REPO).items() if rules},
}
UNUSED = tuple(path for path, rules in files.modules(REPO).items() if not rules)


@pytest.mark.parametrize(
    ("change", "rules"), [(Edit((path,)), rules) for path, rules in FILES.items()], ids=list(FILES)
)
def test_an_edited_file(pretended, graph_after, change, rules):
    graph = pretended[1]
    assert named(stale(graph_after(change))) == named(with_all_below(graph, jobs_of(graph, rules)))


@pytest.mark.parametrize(
    "change", [Edit(tuple(files.NOTHING)), Edit(UNUSED)], ids=["documents", "modules that no script needs"]
)
def test_an_edit_that_nothing_depends_on(graph_after, change):
    assert named(stale(graph_after(change))) == []


@pytest.mark.parametrize(("path", "rules"), files.BY_HAND.items(), ids=list(files.BY_HAND))
def test_the_derivation_says_what_a_row_by_hand_says(path, rules):
    derived = files.modules(REPO)[path]
    assert set(filter(None, derived.split("; "))) == set(filter(None, rules.split("; ")))


def test_new_times_mean_nothing(pretended):
    planner, _ = pretended
    for path in planner.folder.rglob("*"):
        if path.is_file() and path.parts[len(planner.folder.parts)] not in (
            ".snakemake",
            "results",
            "deploy",
        ):
            path.touch()
    assert named(planner.plan()) == []


def test_comments_and_the_order_of_keys_mean_nothing(pretended):
    planner, _ = pretended

    def turned(value):
        if isinstance(value, dict):
            return {key: turned(value[key]) for key in reversed(value)}
        return [turned(entry) for entry in value] if isinstance(value, list) else value

    text = "# a comment\n" + yaml.safe_dump(turned(planner.config), sort_keys=False)
    assert named(planner.plan(config=text)) == []


def test_a_default_that_is_written_out_means_nothing(pretended):
    planner, _ = pretended
    defaults = {
        "seed": 1,
        "datasets.pair.duplicates": "warn",
        "datasets.drawn.validation.seed": 1,
        "models.small.training.decay": 0,
        "models.small.training.restore_best": True,
        "targets.plain.on_cpu": "error",
        "runners.lab.poll_s": 10,
        "predict.top": 3,
    }
    assert named(planner.plan(config=with_change(planner.config, defaults))) == []


def test_switching_containers_on_means_nothing(pretended):
    """conda cannot be had here; --sdm conda takes the same way: file in a param, trigger off."""
    assert named(pretended[0].plan("--sdm", "apptainer")) == []


def test_a_real_snakemake_agrees(pretended):
    planner, graph = pretended
    workflow = Workflow(planner.folder, planner.config)
    assert workflow.plan("all") == set()
    change = {"models.own_h5.input.subtract": 0}
    row = next(row for row in matrix.ROWS if row.change == change)
    direct = "; ".join([row.reruns, matrix.SHOWN])
    below = {job.rule for job in with_all_below(graph, jobs_of(graph, direct))}
    assert workflow.plan("all", config=with_change(planner.config, change)) == below - {
        *every_rule.NO_JOBS_OF_THEIR_OWN, "accept_pictures", "bundle", "predict_pictures",
        "sweep_report",
    }  # fmt: skip


# From here on with results that were really computed.


def test_a_second_run_does_nothing(finished):
    assert finished.plan() == set()


def test_a_changed_report_never_retrains(changeable):
    script = changeable.path("scripts/report.py")
    script.write_text(script.read_text() + "\n# changed\n")
    assert changeable.plan() == {"report", "provenance"}


def test_a_changed_quantizer_reruns_late_stages_and_keeps_early_bytes(changeable):
    """Really run it, then go back: the first results return to the byte."""
    early = ["results/tiny/small/keras_trained_model.h5", "results/tiny/small/frozen_graph.pb"]
    late = [
        "results/tiny/small/reference/quantized_model.h5",
        "results/tiny/small/reference/zcu104/small.xmodel",
    ]
    times = [changeable.path(path).stat().st_mtime_ns for path in early]
    digests = [sha256(changeable.path(path)) for path in late]
    changed = with_change(TINY, {"quantizers.reference": {"tool": "reference", "method": "non_overflow"}})
    changeable.run("all", config=changed)
    assert [changeable.path(path).stat().st_mtime_ns for path in early] == times
    changeable.run("all")
    assert [sha256(changeable.path(path)) for path in late] == digests
