"""Malformed files of every kind: a clear UserError or a right result; no crash, no hang, bounded memory.

Each parser runs in a child process with a limited address space (`fuzz_worker`) on mutations of valid
files that our own writers made (`fuzz_mutations`). DPUFLOW_FUZZ=50 pytest tests/fuzz takes fifty times
as many, new ones each time; `coverage_guided.py` searches longer and by coverage.
"""

import pytest
from fuzz_sandbox import fuzz
from fuzz_targets import TARGETS

EXAMPLES = {
    "csv": 400,
    "csv_form": 300,
    "gz": 200,
    "zip": 150,
    "graph_def": 300,
    "xmodel": 120,
    "machine_code": 80,
    "listing": 300,
    "quantized": 80,
    "dataset": 100,
    "config": 80,
    "predictions": 300,
    "record": 300,
    "outputs": 200,
    "picture": 200,
    "onnx": 120,
    "qdq": 120,
    "quantized_xmodel": 100,
    "foreign_xmodel": 80,
    "saved_model": 20,
    "keras_h5": 15,
    "keras3": 15,
    "pictures_zip": 80,
    "list": 100,
    "voc": 100,
    "coco": 100,
    "yolo": 100,
}
"""Mutations per target: what fits into CI's time."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.fuzz(target.parser, examples=EXAMPLES[name]))
        for name, target in TARGETS.items()
    ],
)
def test_a_malformed_file_is_refused_or_read_right(sandbox, name):
    box = sandbox(name)
    for seed in box.seeds:
        assert box.feed(seed)[0] == "accepted"
    fuzz(box, EXAMPLES[name])
    # most mutations break a rule: a parser that takes them all checks nothing
    assert box.counts["refused"] > EXAMPLES[name] // 10
