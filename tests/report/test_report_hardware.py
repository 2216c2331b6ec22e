"""What the report says of compilation: machine code, estimates, what they take for granted."""

import re
from html import escape

from made_up_runs import make_run, report_of

from dpuflow.base.files import read_json, write_json


def test_machine_code_is_described(tmp_path):
    entry = make_run(tmp_path)
    compiled = read_json(entry["files"]["compile"])
    cycles = {"kind": "estimate", "cycles": 81234, "sequential": 90000, "busy": {"CONV": 70000}}
    program = {"name": "subgraph_1", "machine": "B4096", "code_bytes": 5124, "instructions": {"CONV": 7}}
    program |= {"region_sizes": {"REG_0": 64}, "on_chip": [], "spilled": [], "estimate": cycles}
    made = {"kind": "estimate", "cycles": 81234, "dpu_us": 131.5, "latency_us": 391.5, "overhead_us": 260.0}
    made |= {"frames_per_second": {"one_thread": 2554.0, "one_core_saturated": 3017.0, "board": 4900.0}}
    layer = {"engine": "convolution", "ddr_bytes": 5120, "transfers": 12}
    made["layers"] = [
        {"name": "conv2d", "cycles": 60000, "computing": 50000, "bound": "compute", **layer},
        {"name": "dense", "cycles": 20000, "computing": 1000, "bound": "instructions", **layer},
        {"name": "", "cycles": 1234, "computing": 0, "bound": "memory", **layer},
    ]
    compiled["estimate"]["machine_code"] = made
    verification = {"how": "run on a simulator", "maps": 5, "values_per_image": 9, "layer_inputs": ["random"]}
    verification |= {"images": {"compared": 4, "from_calibration": 2, "made": 2}, "orders": "in order"}
    verification |= {"branches": {"reached": 3, "possible": 4}, "layers": []}
    compiled |= {"compiler": "native", "machine_code": True, "note": "verified on a simulator"}
    compiled |= {"programs": [program], "verification": verification}
    write_json(entry["files"]["compile"], compiled)
    html, _, _ = report_of([entry], tmp_path)
    time = html[html.index("Where the time goes") : html.index("<h4>Machine code</h4>")]
    assert "Estimated from the machine code" in time and "no layer found" in time
    assert re.findall(r"<code>(.*?)</code>.*?num\">([\d.,]+\s%)</td><td>(.*?)</td>", time) == [
        ("conv2d", "73.9\xa0%", "the array"),
        ("dense", "24.6\xa0%", "instruction issue"),
        ("no layer found", "1.5\xa0%", "DDR bytes"),
    ]
    assert "81,234" in html and "Verified: run on a simulator." in html
    assert "<dt>machine code latency</dt><dd>392\xa0µs</dd>" in html
    assert 'data-sort="391.5">392\xa0µs' in html


def test_estimates_and_missing_instructions_are_named(tmp_path):
    entry = make_run(tmp_path)
    html, _, _ = report_of([entry], tmp_path)
    assert '<span class="badge estimate">estimate</span>' in html
    assert "no DPU instructions" in html
    vendors = {"compiler": "vai_c_xir", "machine_code": True, "findings": [], "arch": "arch.json"}
    vendors |= {"dpu_subgraphs": 1, "cpu_subgraphs": 0, "warnings": [], "layers": []}
    ours = read_json(entry["files"]["compile"])
    kept = {key: value for key, value in ours.items() if key not in ("estimate", "note")}
    write_json(entry["files"]["compile"], kept | vendors)
    html, _, _ = report_of([entry], tmp_path)
    assert "no DPU instructions" not in html and "The xmodel holds DPU instructions." in html
    html, _, _ = report_of([entry, make_run(tmp_path / "other", model="other")], tmp_path)
    assert f"The compiled xmodel of {ours['target']} holds no DPU instructions" in html


def test_an_estimate_lists_what_it_takes_for_granted(tmp_path):
    entry = make_run(tmp_path)
    compiled = read_json(entry["files"]["compile"])
    notes = compiled["estimate"]["assumptions"]["notes"]
    html, _, _ = report_of([entry], tmp_path)
    assert notes and all(f"<li>{escape(note)}</li>" in html for note in notes)
    energy = {"kind": "estimate", "idle_w": 5.0, "call_w": 6.0, "call_mj": 9.0}
    compiled["estimate"]["energy"] = energy | {"saturated_w": 7.0, "saturated_mj": 8.125}
    write_json(entry["files"]["compile"], compiled)
    html, _, _ = report_of([entry], tmp_path)
    chief = html[html.index("Latency, throughput, memory") : html.index("All figures of the estimate")]
    assert "8.125 mJ" in chief.replace("\xa0", " ")
