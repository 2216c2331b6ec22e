"""--quick leaves out what needs services, programs or minutes, and nothing else."""

import quick_set

pytest_plugins = ["pytester"]

TEST = """
import pytest

def test_plain():
    pass

@pytest.mark.slow
def test_marked():
    pass
"""


def test_the_quick_set(pytester, monkeypatch):
    # no name of a real test: this process has imported those
    monkeypatch.setattr(quick_set, "FILES", ("test_made_up_wheel.py",))
    pytester.makepyprojecttoml('[tool.pytest.ini_options]\nmarkers = ["slow: s"]\n')
    for room in ("ops", "slurm"):
        folder = pytester.path / "tests" / room
        folder.mkdir(parents=True)
        (folder / f"test_made_up_{room}.py").write_text(TEST)
    (pytester.path / "tests/test_made_up_wheel.py").write_text(TEST)
    result = pytester.runpytest_inprocess("-p", "quick_set", "-p", "no:cacheprovider", "--quick")
    result.assert_outcomes(passed=1, deselected=5)
    whole = pytester.runpytest_inprocess("-p", "quick_set", "-p", "no:cacheprovider")
    whole.assert_outcomes(passed=6)
