"""Energy of an image: the published power of the one board that has any."""

import json

import pytest

from dpuflow.device.targets import get_target, load_targets
from dpuflow.dpuczdx8g.cost_model import estimate
from dpuflow.dpuczdx8g.energy import energy
from dpuflow.report.wording import fact_name, fact_value
from tests.compiler.shaped_networks import small_digits

KV260 = {"name": "KV260", "cores": 1, "clock_mhz": 300}
BOARD = {"latency_us": 4000.0, "frames_per_second": {"one_core_saturated": 400.0}}


def test_idle_power_for_the_time_and_more_for_the_work():
    found = energy(get_target("kv260"), 1_000_000_000, BOARD, 2000.0)
    more = 3.3 + 0.85 * 2.0
    assert found["idle_w"] == 5.28
    assert found["call_mj"] == pytest.approx(5.28 * 4.0 + more, rel=1e-3)
    assert found["saturated_mj"] == pytest.approx(5.28 * 2.5 + more, rel=1e-3)
    assert found["call_w"] == pytest.approx(found["call_mj"] / 4.0, rel=1e-3)
    assert found["saturated_w"] == pytest.approx(found["saturated_mj"] / 2.5, rel=1e-3)


@pytest.mark.parametrize("name", ["zcu102", "zcu104", "DPUCZDX8G_ISA1_B4096"])
def test_no_board_whose_power_was_published(name):
    assert energy(get_target(name), 1, BOARD, 1.0) is None


def test_no_other_clock_than_the_published_one():
    slow = load_targets(extra={"slow": {"dpu": "DPUCZDX8G_ISA1_B4096", "board": KV260 | {"clock_mhz": 200}}})
    same = load_targets(extra={"same": {"dpu": "DPUCZDX8G_ISA1_B4096", "board": KV260}})
    assert energy(slow["slow"], 1, BOARD, 1.0) is None
    assert energy(same["same"], 1, BOARD, 1.0) == energy(get_target("kv260"), 1, BOARD, 1.0)


@pytest.mark.parametrize(("name", "said"), [("kv260", True), ("zcu102", False)])
def test_an_estimate_says_what_its_energy_rests_on(name, said):
    found = estimate(small_digits(), get_target(name))
    notes = [note for note in found["assumptions"]["notes"] if "5.28 W idle" in note and "3.3 pJ" in note]
    assert len(notes) == said and ("energy" in found) == said


def test_the_published_powers(shared):
    """Mean board power of 30 calls from Python, with the published time of a call."""
    measured = json.loads(shared("facts/measured-boards.json").read_text())
    errors = {}
    for name, entry in measured.items():
        if "kv260_w" not in entry:
            continue
        us = 1e3 * entry["kv260_ms"]
        board = {"latency_us": us, "frames_per_second": {"one_core_saturated": entry["fps"]["kv260"][1]}}
        dpu = 1e6 / entry["fps"]["kv260"][1] - 200
        found = energy(get_target("kv260"), int(entry["gop"] * 1e9), board, dpu)
        errors[name] = abs(found["call_w"] / entry["kv260_w"][1] - 1)
    assert len(errors) == 11
    assert sorted(errors.values())[5] < 0.06 and max(errors.values()) < 0.2


def test_units_in_the_report():
    assert fact_name("machine_code energy call_mj") == "machine code energy call"
    assert fact_name("energy idle_w") == "energy idle power"
    assert fact_value("energy call_mj", 12.5) == "12.5\xa0mJ" and fact_value("idle_w", 5.28) == "5.28\xa0W"
