"""The cost model: exact cycle counts, memory, and the published figures it is fitted to."""

import itertools

import numpy as np
import pytest

from dpuflow.device.targets import get_target, load_targets
from dpuflow.dpuczdx8g.cost_model import activation_memory, estimate, layer_cycles
from dpuflow.dpuczdx8g.residency import through_memory
from dpuflow.dpuczdx8g.timing import HOST, TIMING, Timing, between_images
from dpuflow.dpuczdx8g.timing import figures as timing_figures
from tests.compiler.shaped_networks import (
    Builder,
    mobile_quarter,
    residual_50,
    small_digits,
    squeeze,
)

B4096 = get_target("DPUCZDX8G_ISA1_B4096")


@pytest.mark.parametrize(
    ("build", "target", "single", "many"),
    [
        # published frames per second, one thread and many (docs/performance.md, "Time on the board")
        (small_digits, "zcu102", 3748, 6113),
        (residual_50, "kv260", 93.8, 98.21),
        (residual_50, "zcu104", 93.23, 175.39),
        (residual_50, "zcu102", 87.33, 192.94),
        (squeeze, "kv260", 619.72, 762.62),
        (squeeze, "zcu104", 599.88, 1315.93),
        (squeeze, "zcu102", 575.41, 1499.6),
        (mobile_quarter, "kv260", 1470.42, 2428.88),
        (mobile_quarter, "zcu104", 1375.03, 4263.73),
        (mobile_quarter, "zcu102", 1332.9, 4754.2),
    ],
)
def test_the_published_figures(build, target, single, many):
    frames = estimate(build(), get_target(target))["frames_per_second"]
    assert frames["one_thread"] == pytest.approx(single, rel=0.2)
    assert frames["board"] == pytest.approx(many, rel=0.2)


@pytest.mark.parametrize(
    ("build", "published_ms"), [(residual_50, 11.722), (squeeze, 2.97), (mobile_quarter, 1.015)]
)
def test_the_published_calls_from_python(build, published_ms):
    assert estimate(build(), get_target("kv260"))["latency_us"] / 1e3 == pytest.approx(published_ms, rel=0.15)


def test_threads_do_not_scale_with_cores_for_a_small_network():
    figures = estimate(small_digits(), get_target("zcu102"))["frames_per_second"]
    served = HOST.job_us + HOST.fetching(10, 1)
    assert 0.9e6 / served < figures["board"] < 1e6 / served
    assert figures["one_thread"] < figures["one_core_saturated"] < figures["board"]


@pytest.mark.parametrize("cores", [1, 2, 3, 4])
@pytest.mark.parametrize(("dpu_us", "outputs"), [(20.0, 10), (300.0, 1000), (5000.0, 180_000), (7e4, 10)])
def test_no_more_images_than_cores_and_processor_allow(cores, dpu_us, outputs):
    """And another core never makes a board slower, however much of the time goes to memory."""
    alone = HOST.job_us + HOST.fetching(outputs, 2) + dpu_us

    def frames(number):
        shared = dpu_us * TIMING.stretch(number)
        return timing_figures(dpu_us, shared, number, 3000, outputs, 2)["frames_per_second"]

    found = frames(cores)
    assert found["board"] <= 1.001 * min(cores * 1e6 / alone, 1e6 / HOST.job_us)
    assert found["one_thread"] < found["one_core_saturated"] <= found["board"]
    assert found["board"] >= frames(max(1, cores - 1))["board"]


@pytest.mark.parametrize("size", ["B512", "B800", "B1024", "B1152", "B1600", "B2304", "B3136", "B4096"])
def test_every_size_clock_and_number_of_cores_has_an_estimate(size):
    """A faster clock and more cores never make it slower, a larger DPU never more cycles of computing."""
    network, boards = mobile_quarter(), {}
    for cores, clock in itertools.product((1, 2, 3, 4), (100, 200, 333.3, 400)):
        board = {"name": "own", "cores": cores, "clock_mhz": clock}
        entry = {"dpu": f"DPUCZDX8G_ISA1_{size}", "board": board}
        boards[cores, clock] = estimate(network, load_targets(extra={"own": entry})["own"])
    for (cores, clock), found in boards.items():
        frames = found["frames_per_second"]
        assert found["cores"] == cores and found["clock_mhz"] == clock and "energy" not in found
        assert 0 < frames["one_thread"] < frames["one_core_saturated"] <= frames["board"]
        assert frames["board"] <= 1.001 * cores * frames["one_core_saturated"]
        assert frames["one_core_saturated"] <= 1e6 / found["dpu_us"]
        if clock < 400:
            faster = boards[cores, {100: 200, 200: 333.3, 333.3: 400}[clock]]
            assert faster["dpu_us"] < found["dpu_us"] and faster["latency_us"] < found["latency_us"]
    largest = estimate(network, B4096)
    assert sum(x["cycles"] for x in boards[1, 100]["layers"]) >= sum(x["cycles"] for x in largest["layers"])


def test_a_queue_of_two_jobs():
    """Two cores whose jobs take as long to start as to run."""
    assert between_images(100.0, 100.0, 1) == 200.0
    # the second finds the first one being started half of the time: 100 * 1.5 + 100 for each of two
    assert between_images(100.0, 100.0, 2) == pytest.approx(125.0)


def test_published_operation_counts():
    assert estimate(residual_50(), B4096)["workload"] == pytest.approx(7.7e9, rel=0.01)
    assert estimate(mobile_quarter(), B4096)["workload"] == pytest.approx(27e6, rel=0.03)
    assert estimate(residual_50(), B4096)["weight_bytes"] == pytest.approx(25.5e6, rel=0.01)


def test_cycles_of_each_engine():
    b = Builder((28, 28, 1))
    first = b.conv("in", 32, 7, 1, 0)  # augmented: 7 steps of 7 bytes
    second = b.conv(first, 40, 3, 1, 0)
    pooled = b.window("max_pool", second, None, 2, 2, 0)
    depth = b.window("depthwise_conv", pooled, None, 3)
    b.join("add", depth, pooled)
    network = b.network()
    cycles = [layer_cycles(network, layer, B4096) for layer in network.layers]
    assert cycles == [
        0,
        3 * 22 * 2 * 7,  # ceil(22 / 8) * 22 * ceil(32 / 16) * 7
        3 * 20 * 3 * 9 * 2,
        3 * 10 * 3 * 4,
        3 * 10 * 3 * 9,
        3 * 10 * 3 * 2,
    ]


def test_memory_and_labels():
    b = Builder((8, 8, 16))
    x = b.conv("in", 32, 3)
    x = b.put("flatten", [x], (2048,))
    b.put("dense", [x], (10,), activation="NONE")
    figures = estimate(b.network(), B4096, Timing(bytes_per_cycle=5.0))
    assert figures["kind"] == "estimate"
    assert figures["assumptions"]["bytes_per_cycle"] == 5.0
    assert "clock 300 MHz and one core assumed" in figures["assumptions"]["notes"][0]
    conv, dense = figures["layers"]
    assert conv["weight_bytes"] == 32 * (9 * 16 + 1)
    assert dense["weight_bytes"] == 10 * (2048 + 1)
    assert conv["ddr_bytes"] == conv["weight_bytes"] + 1024  # its output stays on chip
    assert dense["ddr_bytes"] == dense["weight_bytes"] + 10
    assert conv["transfers"] == 32 + 1 + 8 and dense["transfers"] == 10 + 1 + 1
    cycles = dense["weight_bytes"] / 5 + 11 * TIMING.transfer_cycles
    assert dense["memory_us"] == pytest.approx(cycles / 300, rel=1e-3)
    assert dense["bound"] == "memory"
    assert figures["weight_bytes"] == conv["weight_bytes"] + dense["weight_bytes"]
    assert figures["activation_bytes"] == 8 * 8 * 16 + 8 * 8 * 32
    assert figures["dpu_us"] == pytest.approx(conv["time_us"] + dense["time_us"], rel=1e-3)
    overhead = HOST.job_us + HOST.call_us + 8 * 8 * 16 * HOST.input_ns / 1e3
    overhead += HOST.fetch_us + 10 * (HOST.fetch_ns + HOST.output_ns) / 1e3
    assert figures["overhead_us"] == pytest.approx(overhead, rel=1e-3)
    assert figures["latency_us"] == pytest.approx(overhead + figures["dpu_us"], rel=1e-3)


def test_neighbours_on_different_engines_overlap():
    b = Builder((28, 28, 16))
    b.window("depthwise_conv", b.conv("in", 16, 3), None, 3)
    conv, depthwise = estimate(b.network(), B4096)["layers"]
    busy = depthwise["compute_us"], depthwise["memory_us"]
    alone = max(busy) + TIMING.exposed * min(busy)
    hidden = TIMING.overlap * min(alone, conv["time_us"])
    assert depthwise["compute_us"] == pytest.approx(TIMING.alu_cycles * depthwise["cycles"] / 300, rel=1e-3)
    assert depthwise["time_us"] == pytest.approx(alone - hidden, rel=1e-3)


def test_many_small_loads_are_bound_by_instructions():
    b = Builder((1, 1, 16))
    b.conv("in", 1024, 1)
    (layer,) = estimate(b.network(), B4096)["layers"]
    assert layer["bound"] == "instructions"


def test_a_map_too_large_for_the_bank_goes_through_memory():
    b = Builder((128, 128, 16))  # 256 KiB: just fits a group of B4096
    b.conv(b.conv("in", 16, 3), 16, 3)
    fits = estimate(b.network(), B4096)["layers"]
    assert fits[1]["ddr_bytes"] == fits[1]["weight_bytes"] + 128 * 128 * 16
    small = estimate(b.network(), get_target("DPUCZDX8G_ISA1_B512"))["layers"]
    # a smaller one could hold some rows at a time: compilers do in part
    part = 1 - TIMING.kept
    assert small[1]["ddr_bytes"] == small[1]["weight_bytes"] + (1 + part) * 128 * 128 * 16
    assert small[0]["ddr_bytes"] == small[0]["weight_bytes"] + (1 + part) * 128 * 128 * 16


def test_weights_come_while_the_layer_before_computes():
    b = Builder((16, 16, 64))
    b.conv(b.conv("in", 64, 7), 1024, 5, stride=4)
    timing = Timing(exposed=0.0)
    first, second = estimate(b.network(), B4096, timing)["layers"]
    assert first["compute_us"] > first["memory_us"]
    idle = first["compute_us"] - first["memory_us"]
    assert second["memory_us"] - second["compute_us"] > idle
    assert second["time_us"] == pytest.approx(second["memory_us"] - idle, rel=1e-3)


def test_which_maps_stay():
    """A shortcut beside its block, a concat and its parts; not what is an output."""
    b = Builder((64, 64, 32))
    x = b.conv("in", 32, 3)
    y = b.conv(b.conv(x, 32, 3), 32, 3)
    added = b.join("add", y, x)
    left, right = b.conv(added, 32, 1), b.conv(added, 32, 3)
    joined = b.join("concat", left, right)
    last = b.conv(joined, 32, 3)
    parts = through_memory(b.network(), B4096, 0.75)
    small = {x: 0.25, added: 0.25, left: 0.25, right: 0.25, joined: 0.25}
    assert parts == {"in": 1.0, last: 1.0, y: 0.0, b.layers[2].name: 0.0, **small}
    # banks of which the concat fills half: what else is alive beside it has no room
    parts = through_memory(b.network(), get_target("DPUCZDX8G_ISA1_B512"), 0.75)
    assert parts[joined] == parts[left] == parts[right] == 1.0


def test_an_output_that_is_read_again_leaves_the_chip():
    b = Builder((16, 16, 16))
    x = b.conv("in", 16, 3)
    b.conv(b.conv(x, 16, 3), 16, 3)
    network = b.network()
    assert through_memory(network, B4096, 1.0)[x] == 0.0
    b.put("flatten", [x], (4096,))
    assert through_memory(b.network(), B4096, 1.0)[x] == 1.0


def test_a_shortcut_keeps_its_map_alive():
    b = Builder((4, 4, 16))
    x = b.conv("in", 16, 3)
    y = b.conv(x, 16, 3)
    b.join("add", y, x)
    assert activation_memory(b.network()) == 3 * 256


def test_zeros_between_groups_are_neither_computed_nor_loaded():
    """Of 64 channels in four groups each 16 outputs read 16: a quarter of the cycles and of the weights."""
    whole = np.ones((64, 3, 3, 64), np.float32)
    inside = np.kron(np.eye(4, dtype=np.float32), np.ones((16, 16), np.float32))
    rows = []
    for weights in (whole, whole * inside[:, None, None]):
        b = Builder((28, 28, 64))
        name = b.conv("in", 64, 3)
        network = b.network()
        network[name].weights = weights
        found = estimate(network, B4096)
        rows.append((found, next(row for row in found["layers"] if row["name"] == name)))
    (dense, all_of_it), (grouped, part) = rows
    assert part["cycles"] * 4 == all_of_it["cycles"]
    assert all_of_it["ddr_bytes"] - part["ddr_bytes"] == round((64 * 9 * 64 + 64) * 0.75)
    assert part["workload"] == all_of_it["workload"] and part["weight_bytes"] == all_of_it["weight_bytes"]
    assert grouped["latency_us"] < dense["latency_us"] and grouped["array_utilisation"] <= 1
