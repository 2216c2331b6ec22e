"""A skip for a missing program is a failure where every program was promised. A pytest plugin.

`make test-tools` installs what the tests use. With DPUFLOW_ALL_TOOLS=1, as in .ci/run, a test that skips all
the same fails with its reason: otherwise the tests of a whole room can vanish from a green run. What no
installation mends may still skip: another processor, an old Python that this system's
packages do not have, the folder ../shared where there is none.
"""

import os
from pathlib import Path

import pytest

SWITCH = "DPUFLOW_ALL_TOOLS"
SHARED = Path(__file__).resolve().parent.parent.parent / "shared"

PROCESSOR = "this processor has no "
OLD_PYTHON = "needs CPython "


def excusable(reason: str) -> bool:
    """Whether no installation would mend a reason for skipping (pytest's text, "Skipped: ...")."""
    reason = reason.removeprefix("Skipped: ")
    return reason.startswith((PROCESSOR, OLD_PYTHON)) or (
        not SHARED.exists() and reason.startswith(f"needs {SHARED}")
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Turn a skip into a failure, with the switch on."""
    report = yield
    if os.environ.get(SWITCH) and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not excusable(reason):
            report.outcome = "failed"
            report.longrepr = f"{SWITCH} is set, so nothing may be skipped for want of a tool. {reason}"
    return report
