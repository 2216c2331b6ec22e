"""Where the estimated time goes: bars, limits and the roofline of a compile.json."""

import re

import numpy as np
import pytest

from dpuflow.report.roofline import HEIGHT, LEFT, roofline
from tests.report.made_up_runs import compilation


def estimate(*rows):
    """An estimate at 300 MHz, 1,000 operations a cycle; rows are (µs, workload, bytes, engine, bound)."""
    made = compilation(np.random.default_rng(0))["estimate"] | {"peak_operations": 1000}
    layer = made["layers"][0] | {"memory_us": 0}
    keys = ("time_us", "workload", "ddr_bytes", "engine", "bound")
    made["layers"] = [
        {**layer, "name": f"layer{i}", "compute_us": row[0], **dict(zip(keys, row, strict=True))}
        for i, row in enumerate(rows)
    ]
    return made


def test_bars_and_limits():
    view = roofline(
        estimate(
            (10.0, 100, 10, "convolution", "compute"),
            (60.0, 100, 10, "alu", "compute"),
            (20.0, 100, 10, "convolution", "memory"),
            (10.0, 0, 10, "convolution", "instructions"),
        )
    )
    assert view["source"] == "the layers"
    assert [row["name"] for row in view["rows"]] == ["layer1", "layer2", "layer0", "layer3"]
    assert [row["share"] for row in view["rows"]] == pytest.approx([0.6, 0.2, 0.1, 0.1])
    assert view["rows"][0]["part"] == 1 and view["rows"][1]["part"] == pytest.approx(1 / 3)
    assert [(name, round(share, 3)) for name, share, _, _ in view["limits"]] == [
        ("the ALU", 0.6),
        ("DDR bytes", 0.2),
        ("the array", 0.1),
        ("instruction issue", 0.1),
    ]
    assert len({words for _, _, words, _ in view["limits"]}) == 4


def test_the_chart_has_a_dot_for_each_layer_below_the_roof():
    # 300 GOP/s, and 22 bytes a cycle: 6.6 GB/s
    view = roofline(
        estimate(
            (1.0, 300_000, 1000, "convolution", "compute"),  # at the peak
            (10.0, 66_000, 66_000, "convolution", "memory"),  # at the slope
            (20.0, 30_000, 100_000, "alu", "memory"),
            (10.0, 0, 100, "alu", "memory"),  # no operations: no place
        )
    )
    chart = str(view["chart"])
    dots = [tuple(map(float, dot)) for dot in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', chart)]
    assert len(dots) == 3 and "300 GOP/s" in chart
    (start, left), (ridge, peak), (end, right) = (
        tuple(map(float, corner.split(","))) for corner in re.search(r'points="(.*?)"', chart)[1].split()
    )
    assert LEFT <= start < ridge < end and peak == right < left <= HEIGHT
    below = sorted(dots, key=lambda dot: dot[1])
    assert below[0][1] == pytest.approx(peak, abs=0.02) and below[0][0] > ridge
    slope = (left - peak) / (start - ridge)
    on_slope = peak + (below[1][0] - ridge) * slope
    assert below[1][1] == pytest.approx(on_slope, abs=0.05)
    assert below[2][1] > peak + (below[2][0] - ridge) * slope


def test_nothing_to_show():
    assert roofline(estimate()) is None
    assert roofline(estimate((0.0, 0, 0, "alu", "compute"))) is None
    assert roofline(estimate((1.0, 0, 0, "alu", "compute")))["chart"] is None
