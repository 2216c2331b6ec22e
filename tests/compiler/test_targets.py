"""Targets: every derived value against the vendor's data, user entries, errors."""

import json

import pytest

from dpuflow.base.errors import UserError
from dpuflow.device.targets import configured_target, describe_fingerprint, get_target, load_targets
from dpuflow.dpuczdx8g.isa.machine import machine_for

SIZES = ("B512", "B800", "B1024", "B1152", "B1600", "B2304", "B3136", "B4096")
ACTIVATIONS = {"relu": "RELU", "leaky_relu": "LEAKYRELU", "relu_six": "RELU6"}


def ranges(text):
    return tuple(int(part) for part in text.split("-"))


OWN = {"cores": 1, "clock_mhz": 300}


@pytest.mark.parametrize("size", SIZES)
def test_every_value_equals_the_vendor_data(shared, size):
    facts = {row["name"]: row for row in json.loads(shared("facts/targets.json").read_text())}
    fact = facts[f"DPUCZDX8G_ISA1_{size}"]
    target = get_target(f"DPUCZDX8G_ISA1_{size}")
    assert (target.dpu_type, target.isa, target.size) == (fact["type"], fact["isa"], size)
    assert target.fingerprint == target.fingerprints["3.0"] == int(fact["fingerprint"], 16)
    four_alu_pixels = 0x200 if size in ("B512", "B800", "B1152") else 0
    assert target.fingerprints["2.5"] == target.fingerprint - (1 << 30) + four_alu_pixels
    assert target.pixel_parallel == fact["pp"]
    assert target.input_channel_parallel == fact["icp"]
    assert target.output_channel_parallel == fact["ocp"]
    assert target.peak_operations == fact["peak_ops_per_cycle"] == int(size[1:])
    assert target.channel_augmentation == fact["channel_augmentation"]
    assert target.alu_pixel_parallel == fact["alu"]["pp"] == fact["eltwise_pp"]
    ours = {name: [bank.count, bank.width, bank.depth] for name, bank in target.banks.items()}
    image = ours.pop("image")
    assert [fact["banks"][f"VB{group}"] for group in range(target.image_groups)] == [image] * 2
    assert set(fact["banks"]) == {"VB0", "VB1", "CONVW", "DWCONVW", "BIAS"}
    theirs = {"weights": "CONVW", "depthwise": "DWCONVW", "bias": "BIAS"}
    assert ours == {name: fact["banks"][bank] for name, bank in theirs.items()}
    limits = target.limits
    assert limits.conv_kernel == ranges(fact["conv_kernel"])
    assert limits.conv_stride == ranges(fact["conv_stride"])
    assert limits.alu_kernel == ranges(fact["alu"]["kernel"])
    assert limits.alu_stride == ranges(fact["alu"]["stride"])
    assert sorted(limits.alu_pad) == sorted(ranges(pad)[1] for pad in fact["alu"]["pad"])
    assert set(limits.conv_activations) == {"NONE"} | {ACTIVATIONS[name] for name in fact["conv_act"]}
    assert set(limits.depthwise_activations) == {"NONE"} | {ACTIVATIONS[name] for name in fact["alu"]["act"]}
    assert {kind.lower() for kind in limits.eltwise} == {name[:3] for name in fact["eltwise"]}


def test_published_fingerprints_and_ug1414_limits():
    target = get_target("DPUCZDX8G_ISA1_B4096")
    assert target.fingerprints == {
        "2.5": 0x101000016010407,
        "3.0": 0x101000056010407,
        "3.5": 0x101000056010407,
    }
    assert target.limits.channels == 4096
    assert target.limits.weight_entries == 2048
    assert target.arch_json == {"fingerprint": "0x101000056010407"}


@pytest.mark.parametrize(
    ("name", "size", "cores", "clock"),
    [("zcu102", "B4096", 3, 281), ("zcu104", "B4096", 2, 300), ("kv260", "B4096", 1, 300)]
    + [("ultra96v2", "B1600", 1, 287)],
)
def test_boards(name, size, cores, clock):
    target = get_target(name)
    assert (target.size, target.board.cores, target.board.clock_mhz) == (size, cores, clock)
    bytes_, millions = {"zcu102": (8, 2133), "zcu104": (8, 2133), "kv260": (8, 2400)}.get(name, (4, 1066))
    assert target.board.memory_gb_s == pytest.approx(bytes_ * millions / 1e3, rel=0.01)


def test_a_users_own_target():
    entry = {
        "dpu": "DPUCZDX8G_ISA1_B2304",
        "release": "2.5",
        "board": {"name": "ZCU106", "cores": 2, "clock_mhz": 325},
    }
    target = get_target("mine", load_targets(extra={"mine": entry}))
    assert target.fingerprint == 0x101000016010405
    assert (target.name, target.dpu, target.board.name) == ("mine", "DPUCZDX8G_ISA1_B2304", "ZCU106")
    assert target.board.memory_gb_s is None
    entry = {"dpu": "DPUCZDX8G_ISA1_B2304", "board": OWN | {"memory_gb_s": 4}}
    assert load_targets(extra={"mine": entry})["mine"].board.memory_gb_s == 4.0
    assert load_targets(extra={"mine": {"dpu": "DPUCZDX8G_ISA1_B512"}})["mine"].board is None


def test_a_target_may_name_a_board():
    entry = {"dpu": "DPUCZDX8G_ISA1_B3136", "release": "2.5", "board": "kv260", "compiler": "native"}
    target = load_targets(extra={"kv260": entry})["kv260"]
    assert (target.size, target.board.name, target.board.clock_mhz) == ("B3136", "KV260", 300)


@pytest.mark.fault("configuration", "entry of a target: {id}", "refused")
@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"dpu": "DPUCZDX8G_ISA1_B4069"}, "B4096"),
        ({"dpu": "DPUCZDX8G_ISA1_B4096", "release": 3.0}, "quoted"),
        ({"dpu": "DPUCZDX8G_ISA1_B4096", "board": "kv206"}, "kv260"),
        ({"dpu": "DPUCZDX8G_ISA1_B4096", "board": {"cores": 1, "clock": 300}}, "board.clock"),
        ({"release": "3.0"}, "expected"),
        ("B4096", "expected"),
        ({"dpu": "DPUCZDX8G_ISA1_B4096", "board": {"cores": 0, "clock_mhz": 300}}, "cores"),
        ({"dpu": "DPUCZDX8G_ISA1_B4096", "board": {"cores": 1, "clock_mhz": "300 MHz"}}, "clock_mhz"),
    ],
)
def test_a_wrong_entry_is_named(entry, words):
    with pytest.raises(UserError, match=words) as error:
        load_targets(extra={"mine": entry})
    assert "mine" in str(error.value)


@pytest.mark.parametrize("memory", [0, -1.5, "17 GB/s", True, 4000])
def test_a_wrong_memory_is_named(memory):
    entry = {"dpu": "DPUCZDX8G_ISA1_B4096", "board": OWN | {"memory_gb_s": memory}}
    with pytest.raises(UserError, match=r"mine\.board\.memory_gb_s: must be a number of GB/s, got"):
        load_targets(extra={"mine": entry})


@pytest.mark.fault("configuration", "unknown target", "refused")
def test_an_unknown_target_lists_the_nearest():
    with pytest.raises(UserError, match="zcu104"):
        get_target("zcu14")
    with pytest.raises(UserError, match="DPUCZDX8G_ISA1_B4096"):
        get_target("B4096")
    with pytest.raises(UserError, match="kv260, ultra96v2"):
        get_target("?")


@pytest.mark.fault("configuration", "table of targets missing or broken", "refused")
def test_a_missing_or_broken_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_targets(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("families: [")
    with pytest.raises(UserError, match="not YAML"):
        load_targets(tmp_path / "bad.yaml")


def test_a_fingerprint_in_words():
    assert describe_fingerprint(0x101000016010407) == "DPUCZDX8G_ISA1_B4096, release 2.5"
    assert describe_fingerprint(0x101000056010404) == "DPUCZDX8G_ISA1_B1600, release 3.0 or 3.5"
    assert describe_fingerprint(7) is None


@pytest.mark.parametrize(("size", "code"), [("B512", 0), ("B800", 1), ("B1152", 3)])
def test_small_sizes_of_release_2_5_have_four_alu_pixels(size, code):
    dpu, real = f"DPUCZDX8G_ISA1_{size}", 0x101000016010400 + code
    old = configured_target("old", {"dpu": dpu, "release": "2.5"})
    assert (old.fingerprint, old.alu_pixel_parallel, machine_for(real).alu_pixels) == (real, 4, 4)
    assert get_target(dpu).alu_pixel_parallel == machine_for(get_target(dpu).fingerprint).alu_pixels == 2
    assert describe_fingerprint(real) == f"{dpu}, release 2.5"
    assert old.other_fingerprints == {"2.5": real - 0x200}
    assert describe_fingerprint(real - 0x200) == f"{dpu}, release 2.5, built with 2 ALU pixels"


def test_other_dpus_are_named_by_type_and_instruction_set():
    assert describe_fingerprint(0x1000020F6014407) == "DPUCZDX8G, instruction set ISA0"
    assert describe_fingerprint(0x603000B16013831) == "DPUCVDX8G, instruction set ISA3"
    assert describe_fingerprint(0x901400044000144) == "DPUCV2DX8G, instruction set ISA1"
