"""docs/architecture.md says which rooms there are and which way they import; no import runs in a circle."""

import ast
import re
from functools import cache
from graphlib import CycleError, TopologicalSorter

import pytest

MADE = ("results/", "benchmarks/jobs/")
"""Folders that runs make."""
NO_ROOMS = ("__main__", "isa", "foreign")
"""Names for shells, and programs for other machines."""


def modules(root):
    """{module name: path} of the package below `root`."""
    found = {}
    for path in sorted(root.glob("dpuflow/**/*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(root):
    """{module: the modules that it imports}, also those inside of functions and for types alone."""
    known = modules(root)
    arrows = {}
    for name, path in known.items():
        arrows[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            named = []
            if isinstance(node, ast.Import):
                named = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: a relative import"
                named = [f"{node.module}.{alias.name}" for alias in node.names]
                named = [module if module in known else node.module for module in named]
            arrows[name].update(module for module in named if module in known and module != name)
    return arrows


def room(module):
    """The package below `dpuflow` that a module is in; a module of `dpuflow` itself is its own."""
    return module.split(".")[1] if "." in module else "dpuflow"


def package(module, known):
    """The package that a module is in, however deep."""
    return module if known[module].name == "__init__.py" else module.rpartition(".")[0]


def between(arrows, group):
    """The arrows between groups of modules."""
    found = {group(module): set() for module in arrows}
    for module, others in arrows.items():
        found[group(module)] |= {group(other) for other in others} - {group(module)}
    return found


def circle(arrows):
    """A circle of arrows as a list, or None."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def rows(repo):
    """[{room: what the page says of it}] of the page's table, from the top downward."""
    text = (repo / "docs/architecture.md").read_text(encoding="utf-8")
    table = text.split("## Rooms\n")[1].split("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("| `")]
    found, last = [], None
    for line in lines:
        name, layer, text = (cell.strip() for cell in line.strip("|").split("|"))
        if layer != last:
            found.append({})
        found[-1][name.strip("`")] = text
        last = layer
    return found


def test_no_module_imports_itself_by_way_of_others(repo):
    assert circle(imports(repo)) is None


def test_no_room_imports_itself_by_way_of_others(repo):
    assert circle(between(imports(repo), room)) is None


def test_no_package_inside_of_a_room_either(repo):
    known = modules(repo)
    arrows = {name: others for name, others in imports(repo).items() if name.startswith("dpuflow.dpuczdx8g")}
    inside = {name: {other for other in others if other in arrows} for name, others in arrows.items()}
    # what lies beside a package may use it: compile_report is above native's tables, not below
    assert circle(between(inside, lambda module: package(module, known))) is None


def test_the_page_has_every_room_once(repo):
    told = [name for row in rows(repo) for name in row]
    there = {room(module) for module in modules(repo)} - {"dpuflow", *NO_ROOMS}
    assert sorted(told) == sorted(there)


def test_arrows_go_downward_on_the_page(repo):
    height = {name: -number for number, row in enumerate(rows(repo)) for name in row}
    arrows = between(imports(repo), room)
    upward = [
        f"{source} -> {target}"
        for source, targets in sorted(arrows.items())
        for target in sorted(targets)
        if source in height and target in height and height[target] >= height[source]
    ]
    assert upward == []


def test_every_file_that_the_page_names_exists(repo):
    text = (repo / "docs/architecture.md").read_text(encoding="utf-8")
    for name in re.findall(r"`((?:[a-z_0-9]+/)+[a-z_0-9]*(?:\.py)?)`", text):
        places = (repo / name, repo / "dpuflow" / name)
        assert name.startswith(MADE) or any(place.exists() for place in places), name
    for module in re.findall(r"`([a-z_0-9]+(?:\.[a-z_0-9]+)+)`", text):
        path = module.split(".")
        if path[-1] in ("py", "json", "csv", "html", "h5"):
            continue
        tops = (repo / "dpuflow" / path[0], repo / "dpuflow" / path[0] / f"{path[1]}.py")
        if tops[0].is_dir():
            names = [p.stem for p in tops[0].glob("*")]
            text_of = (tops[0] / "__init__.py").read_text()
            assert path[1] in names or path[1] in text_of, module


# -- the search itself -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a/x.py": "import dpuflow.b.y", "b/y.py": ""}, None),
        ({"a/x.py": "import dpuflow.b.y", "b/y.py": "def f():\n    from dpuflow.a.x import g\n"}, "a.x"),
        ({"a/x.py": "from dpuflow.b import y", "b/y.py": "from dpuflow.a import x"}, "a.x"),
        ({"a/x.py": "if TYPE_CHECKING:\n    import dpuflow.b.y", "b/y.py": "import dpuflow.a.x"}, "a.x"),
    ],
)
def test_a_circle_of_modules_is_found(tmp_path, files, expected):
    for name in ("__init__.py", "a/__init__.py", "b/__init__.py"):
        (tmp_path / "dpuflow" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "dpuflow" / name).touch()
    for name, text in files.items():
        (tmp_path / "dpuflow" / name).write_text(text)
    found = circle(imports(tmp_path))
    assert (found is None) if expected is None else (f"dpuflow.{expected}" in found)


def test_a_circle_of_rooms_is_found_without_one_of_modules(tmp_path):
    """a.x -> b.y and b.z -> a.w: no module reaches itself, the rooms do."""
    files = {"a/x.py": "import dpuflow.b.y", "a/w.py": "", "b/y.py": "", "b/z.py": "import dpuflow.a.w"}
    for name, text in {**files, "__init__.py": "", "a/__init__.py": "", "b/__init__.py": ""}.items():
        (tmp_path / "dpuflow" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "dpuflow" / name).write_text(text)
    arrows = imports(tmp_path)
    assert circle(arrows) is None
    assert set(circle(between(arrows, room))) == {"a", "b"}
