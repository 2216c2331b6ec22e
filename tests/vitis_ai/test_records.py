"""compile.json of a vendor's compiler, from real vendor-made files and made-up logs."""

import hashlib
import json
from pathlib import Path

import pytest

from dpuflow.base import protobuf_seal as seal
from dpuflow.base.errors import UserError
from dpuflow.device.targets import load_targets
from dpuflow.report import hardware
from dpuflow.report.inputs import LoadedRun
from dpuflow.vitis_ai.records import compile_record, enforce_on_cpu, with_input_scaling
from dpuflow.xir import Graph

LOG = Path(__file__).with_name("logs") / "vai_c.log"
ARCH = "/opt/vitis_ai/compiler/arch/DPUCZDX8G/ZCU102/arch.json"


def zcu102(release="3.0"):
    return load_targets(extra={"t": {"board": "zcu102", "release": release}})["t"]


@pytest.fixture
def vendor(shared, tmp_path):
    """A file that the vendor's compiler made, and a log that speaks of it."""
    path = shared("golden/vendor/zcu102_mnist_3.0.xmodel")
    log = tmp_path / "compile.log"
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    log.write_text(
        LOG.read_text(encoding="utf-8").replace("635a7ac74171877a1471de5a2644e64c", md5), encoding="utf-8"
    )
    return path, log


def record(vendor, target=None, compiler="vai_c_tensorflow2"):
    path, log = vendor
    target = target or zcu102()
    return compile_record(compiler, target.release, target, Graph.load(path), path, log, ARCH)


def test_a_file_of_the_vendor(vendor):
    found = record(vendor)
    assert found["compiler"] == "vai_c_tensorflow2" and found["fingerprint"] == "0x101000056010407"
    assert found["machine_code"] is True and found["dpu_subgraphs"] == 2
    assert found["board"] == {"name": "ZCU102", "cores": 3, "clock_mhz": 281.0, "memory_gb_s": 17.1}
    work = {row["op"]: row for row in found["layers"][:1]}
    assert work["conv2d-fix"]["workload"] == 1533312 and work["conv2d-fix"]["workload_on_arch"] == 3801600
    assert "note" not in found
    json.dumps(found)


def test_what_runs_on_the_cpu_is_found(vendor):
    findings = {finding["layer"]: finding for finding in record(vendor)["findings"]}
    assert findings["head/Sigmoid"]["reason"] == "DPU does not support sigmoid"  # told by the log
    assert "probabilities/Softmax" not in findings  # softmax is no finding
    with pytest.raises(UserError, match=r"head/Sigmoid \(sigmoid\).*on_cpu: warn"):
        enforce_on_cpu(record(vendor), "error")
    enforce_on_cpu(record(vendor), "warn")


@pytest.mark.fault("vendor", "xmodel of another release or target", "refused")
def test_a_file_for_another_release_is_refused(vendor):
    with pytest.raises(
        UserError, match=r"0x101000056010407 \(.*3\.0.*target t is 0x101000016010407.*release 2\.5"
    ):
        record(vendor, zcu102("2.5"))


@pytest.mark.fault("vendor", "xmodel that is not the one of the compiler's log (MD5)", "refused")
def test_a_log_of_another_file_is_refused(vendor):
    path, _ = vendor
    with pytest.raises(UserError, match=r"MD5 .* says 635a7ac74171877a1471de5a2644e64c"):
        record((path, LOG))


@pytest.mark.fault("vendor", "xmodel without a DPU subgraph", "refused")
def test_a_file_without_a_dpu_subgraph_is_refused(shared, tmp_path):
    path = shared("golden/vendor/voxelnet_quantized_2.0.xmodel")
    log = tmp_path / "compile.log"
    log.write_text("[UNILOG][INFO] Compile done.\n")
    with pytest.raises(UserError, match="holds no DPU subgraph"):
        record((path, log))


def test_the_report_reads_it(vendor):
    view = hardware.hardware(LoadedRun({}, {}, compile=record(vendor)))
    assert view["has_instructions"] and view["facts"]["compiler"] == "vai_c_tensorflow2"
    assert view["layers"]["columns"][:2] == ["name", "op"] and view["findings"]


def test_input_scaling_is_appended(vendor):
    path, _ = vendor
    data = with_input_scaling(path, {"subtract": 0, "divide": 255})
    assert data.startswith(path.read_bytes()) and len(data) - path.stat().st_size < 100 + seal.SIZE
    before, after = Graph.load(path), Graph.from_bytes(data)
    assert (after.attrs["input_subtract"], after.attrs["input_divide"]) == (0.0, 255.0)
    assert [op.name for op in after.ops] == [op.name for op in before.ops] and after.name == before.name
    assert set(after.attrs) == set(before.attrs) | {"input_subtract", "input_divide"}
