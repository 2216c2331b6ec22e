"""With DPUFLOW_ALL_TOOLS a skip for a missing program fails; without, it skips with its reason."""

import hidden_skips
import pytest

pytest_plugins = ["pytester"]

TESTS = """
import pytest

@pytest.fixture
def server():
    pytest.skip("needs OpenSSH's sshd")

def test_in_a_fixture(server):
    pass

def test_in_the_test():
    pytest.skip("needs node")

@pytest.mark.skip(reason="some day")
def test_by_a_mark():
    pass

def test_of_a_processor():
    pytest.skip("this processor has no AVX-VNNI")

@pytest.mark.xfail(reason="known")
def test_known():
    assert False

def test_passes():
    pass
"""


@pytest.mark.parametrize(
    ("value", "outcomes"),
    [
        ("", {"passed": 1, "skipped": 4, "xfailed": 1}),
        ("1", {"passed": 1, "skipped": 1, "xfailed": 1, "failed": 2, "errors": 1}),
    ],
)
def test_skips_fail_with_the_switch_on(pytester, monkeypatch, value, outcomes):
    monkeypatch.setenv(hidden_skips.SWITCH, value)
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_inprocess("-p", "hidden_skips", "-p", "no:cacheprovider")
    if value:  # a skip by a mark is set up, like a fixture
        outcomes = {**outcomes, "errors": 2, "failed": 1}
    result.assert_outcomes(**outcomes)


def test_what_no_installation_mends(monkeypatch, tmp_path):
    monkeypatch.setattr(hidden_skips, "SHARED", tmp_path)
    gone = f"Skipped: needs {tmp_path}/golden/ops.npz, which is not on this machine"
    assert not hidden_skips.excusable(gone)
    monkeypatch.setattr(hidden_skips, "SHARED", tmp_path / "none")
    assert hidden_skips.excusable(
        f"Skipped: needs {tmp_path}/none/golden/ops.npz, which is not on this machine"
    )
    assert hidden_skips.excusable("Skipped: needs CPython 3.7 in /somewhere (pyenv install 3.7)")
    assert not hidden_skips.excusable("Skipped: needs a Chromium")
