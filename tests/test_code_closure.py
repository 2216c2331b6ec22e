import importlib

import pytest

from dpuflow.workflow import code_closure
from dpuflow.workflow.code_closure import source_files


@pytest.fixture
def tree(tmp_path):
    files = {
        "dpuflow/__init__.py": "",
        "dpuflow/a.py": "from dpuflow.sub import b\nimport numpy\n",
        "dpuflow/unused.py": "",
        "dpuflow/sub/__init__.py": "",
        "dpuflow/sub/b.py": "def f():\n    import dpuflow.late\n\n\nTABLE = 'table.yaml'\n",
        "dpuflow/sub/table.yaml": "",
        "dpuflow/sub/unused.yaml": "",
        "dpuflow/sub/page.j2": '{% extends "base.j2" %}',
        "dpuflow/pages/base.j2": "",
        "dpuflow/late.py": "AGENT, TOOLS, PAGE, FAR = 'agent.py', 'bin', 'page.j2', 'far/away/programs'\n",
        "dpuflow/agent.py": "",
        "dpuflow/bin/tool": "exec python -m dpuflow.sub.tool\n",
        "dpuflow/sub/tool.py": "",
        "dpuflow/far/away/programs/one.py": "",
        "dpuflow/far/away/programs/two.py": "",
        "dpuflow/far/away/unused.py": "",
        "scripts/s.py": "from dpuflow.a import x\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_closure_follows_imports_also_inside_functions_and_takes_what_is_named(tree):
    assert source_files("scripts/s.py", tree) == [
        "dpuflow/__init__.py",
        "dpuflow/a.py",
        "dpuflow/agent.py",
        "dpuflow/bin/tool",
        "dpuflow/far/away/programs/one.py",
        "dpuflow/far/away/programs/two.py",
        "dpuflow/late.py",
        "dpuflow/pages/base.j2",
        "dpuflow/sub/__init__.py",
        "dpuflow/sub/b.py",
        "dpuflow/sub/page.j2",
        "dpuflow/sub/table.yaml",
        "dpuflow/sub/tool.py",
    ]


def test_real_scripts_depend_on_what_they_use_and_no_more(repo):
    train = source_files("scripts/train.py", repo)
    assert "dpuflow/training/augmentation.py" in train
    assert not any("quantize" in path or "report" in path or "xir" in path for path in train)
    frozen = source_files("scripts/evaluate_frozen.py", repo)
    assert "dpuflow/training/augmentation.py" not in frozen


def test_the_digest_tells_contents_and_names_apart_and_ignores_times(tree):
    def digest():
        # as in another process: it keeps what it has read
        return importlib.reload(code_closure).code_digest("scripts/s.py", tree)

    first = digest()
    (tree / "dpuflow/a.py").touch()
    (tree / "dpuflow/unused.py").write_text("x = 1\n")
    assert digest() == first and len(first) == 64
    (tree / "dpuflow/late.py").write_text("x = 1\n")
    assert digest() != first
    late = digest()
    with open(tree / "scripts/s.py", "a") as stream:
        stream.write("# changed\n")
    assert digest() != late
