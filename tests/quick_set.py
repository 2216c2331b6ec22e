"""`pytest --quick`, as `make test-quick` calls it: what a person runs before a commit. A pytest plugin.

It leaves out what needs a service, a browser, Snakemake or long training, and the rooms whose tests start
TensorFlow or other programs again and again: `make test` runs them all. What is left takes less than four
minutes on two cores, and each room that computes is in it.
"""

MARKS = ("slow", "rules", "browser", "fuzz")
"""A test with one of these is left out."""
ROOMS = ("board", "reliability", "rules", "slurm", "training", "vitis_ai")
"""Folders of tests that are left out."""
FILES = (
    *("test_wheel.py", "test_benchmarks.py", "test_style.py", "test_board_time.py", "test_torch.py"),
    *("test_emulator_wild.py", "test_wild_files.py", "test_vendor_files.py", "test_native_golden_ops.py"),
    *(
        "test_native_scheduling.py",
        "test_native_shuffling.py",
        "test_native_resizing.py",
        "test_broken_code.py",
    ),
)
"""Files of tests that are left out: they build, measure, run the checks of `make lint`, or take large files
and many steps of the simulator (`tests/network_fuzz` compares machine code in the quick set)."""


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="leave out what needs services or minutes")


def is_quick(item):
    """Whether a test belongs to the quick ones."""
    parts = item.path.parts
    room = parts[parts.index("tests") + 1] if "tests" in parts else ""
    marked = any(item.get_closest_marker(name) for name in MARKS)
    return not marked and room not in ROOMS and item.path.name not in FILES


def pytest_collection_modifyitems(config, items):
    """Deselect what is not quick."""
    if config.getoption("--quick"):
        quick = [item for item in items if is_quick(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(quick)])
        items[:] = quick
