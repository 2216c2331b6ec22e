"""Release matrix, tool options, and whether a configuration fits together."""

import copy

import pytest
import yaml

from dpuflow.base.errors import UserError
from dpuflow.device.targets import load_targets
from dpuflow.vitis_ai import releases
from dpuflow.vitis_ai.shell_words import option_words
from dpuflow.workflow.config import check

B4096 = "DPUCZDX8G_ISA1_B4096"


@pytest.fixture(scope="module")
def base(repo):
    """The default configuration."""
    return yaml.safe_load((repo / "config/config.yaml").read_text())


@pytest.fixture
def checked(base, repo):
    """Factory: the message about a changed default configuration, or None when it passes."""

    def run(quantizer=None, target=None, images=None, **more):
        config = copy.deepcopy(base)
        if quantizer:
            config["quantizers"]["v"] = quantizer
            config["runs"][0]["quantizer"] = "v"
        if target:
            config["targets"]["t"] = target
            config["runs"][0]["target"] = "t"
        if images:
            config["vitis_ai"] = {"images": images}
        config |= more
        try:
            check(config, repo / "config/config.schema.yaml")
        except UserError as error:
            return str(error)

    return run


def quantizer(tool="vai_q_tensorflow", release="3.0", **more):
    return {"tool": tool, "release": release, **more}


def target(compiler="vai_c_tensorflow", release="3.0", **more):
    return {"dpu": B4096, "release": release, "compiler": compiler, **more}


def test_every_release_of_the_matrix_is_one_of_the_targets():
    fingerprints = load_targets()[B4096].fingerprints
    assert set(releases.matrix()["releases"]) == set(fingerprints)


def test_every_tool_has_a_container_in_every_release():
    for tool in releases.matrix()["tools"]:
        for release in releases.matrix()["releases"]:
            assert releases.image(tool, release).startswith("docker://xilinx/vitis-ai")
    assert releases.image("vai_c_xir", "3.5") == releases.image("vai_c_tensorflow2", "3.5")
    assert releases.image("vai_q_tensorflow", "3.0") != releases.image("vai_q_tensorflow2", "3.0")


def test_an_own_image_comes_first():
    own = {"3.0": {"tensorflow": "images/vai.sif"}}
    assert releases.image("vai_q_tensorflow", "3.0", own) == "images/vai.sif"
    assert releases.image("vai_q_tensorflow2", "3.0", own) == releases.image("vai_q_tensorflow2", "3.0")


def test_arch_path_only_for_a_published_board_with_its_own_dpu():
    boards = load_targets()
    assert (
        releases.arch_path(boards["zcu104"], "3.0")
        == "/opt/vitis_ai/compiler/arch/DPUCZDX8G/ZCU104/arch.json"
    )
    assert releases.arch_path(boards["ultra96v2"], "3.0") is None  # no such file in the containers
    assert releases.arch_path(boards[B4096], "3.0") is None  # no board
    other = load_targets(extra={"x": {"dpu": "DPUCZDX8G_ISA1_B3136", "board": "kv260"}})["x"]
    assert releases.arch_path(other, "3.0") is None  # a KV260 with another DPU than the published one


def test_option_words_are_quoted():
    assert (
        option_words({"method": 1, "ignore_nodes": "a b;rm -rf"}) == "--ignore_nodes 'a b;rm -rf' --method 1"
    )
    assert option_words({}) == ""


def test_a_fitting_pair_passes(checked):
    assert checked(quantizer(), target()) is None
    assert checked(quantizer("vai_q_tensorflow2", "2.5"), target("vai_c_tensorflow2", "2.5")) is None
    assert checked(None, target("vai_c_xir", "3.5", compiler_options={"mode": "debug"})) is None


@pytest.mark.fault("vendor", "options of a tool: {id}", "refused")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"metod": 1},
            "quantizers.v.options.metod: unknown option of vai_q_tensorflow; did you mean method?",
        ),
        ({"method": 3}, "quantizers.v.options.method: 3; vai_q_tensorflow expects one of 0, 1, 2"),
        ({"method": True}, "quantizers.v.options.method: True; vai_q_tensorflow expects one of 0, 1, 2"),
        ({"nodes_bit": 8}, "quantizers.v.options.nodes_bit: 8; vai_q_tensorflow expects a text"),
        ({"input_frozen_graph": "x"}, "unknown option of vai_q_tensorflow"),
    ],
)
def test_wrong_options(checked, options, message):
    assert message in checked(quantizer(options=options), target())


def test_an_option_of_a_later_release(checked):
    message = checked(quantizer(release="2.5", options={"add_shapes": 1}), target(release="2.5"))
    assert "quantizers.v.options.add_shapes: vai_q_tensorflow has this option from release 3.0 on" in message
    assert checked(quantizer(release="3.0", options={"add_shapes": 1}), target()) is None


def test_options_of_compilers(checked):
    message = checked(quantizer(), target(compiler_options={"mod": "debug"}))
    assert "targets.t.compiler_options.mod: unknown option of vai_c_tensorflow; did you mean mode?" in message
    message = checked(None, {"dpu": B4096, "compiler_options": {"mode": "debug"}})
    assert "targets.t.compiler_options: reference has none" in message


def test_container_and_board_of_different_releases(checked):
    message = checked(quantizer(release="3.5"), target(release="3.0"))
    assert "the containers are of release 3.5, the board image of 3.0" in message
    assert "runtime on the board is of another release" in message  # same fingerprint in 3.0 and 3.5
    message = checked(quantizer(release="2.5"), target(release="3.0"))
    assert "0x101000056010407" in message and "0x101000016010407" in message


@pytest.mark.parametrize(
    ("tool", "compiler", "advice"),
    [
        ("vai_q_tensorflow", "vai_c_tensorflow2", "compiler: vai_c_tensorflow"),
        ("vai_q_tensorflow2", "vai_c_xir", "compiler: vai_c_tensorflow2"),
        ("vai_q_tensorflow2", "reference", "compiler: vai_c_tensorflow2"),
        (None, "vai_c_tensorflow", "compiler: reference or native or vai_c_xir"),
    ],
)
def test_a_compiler_that_cannot_read_the_quantizer(checked, tool, compiler, advice):
    message = checked(quantizer(tool) if tool else None, target(compiler))
    assert message.startswith("config: runs[0]: quantizer") and advice in message


def test_a_board_of_another_release_than_its_target(checked):
    def ssh(fingerprint):
        boards = [{"host": "a"}, {"host": "b", "fingerprint": fingerprint}]
        run = {
            "dataset": "synthetic_signs",
            "model": "signnet",
            "quantizer": "v",
            "target": "t",
            "runner": "s",
        }
        return {"runners": {"s": {"kind": "ssh", "boards": boards}}, "runs": [run]}

    assert checked(quantizer(), target(), **ssh("0x101000056010407")) is None
    message = checked(quantizer(), target(), **ssh("0x101000016010407"))
    assert (
        "runners.s.boards[1].fingerprint is 0x101000016010407 (DPUCZDX8G_ISA1_B4096, release 2.5)" in message
    )


@pytest.mark.fault("vendor", "unknown release, tool, framework", "refused")
def test_unknown_release_tool_and_framework(checked):
    assert 'write one of "2.5", "3.0", "3.5" (quoted)' in checked(quantizer(release="3.1"), target())
    assert "did you mean vai_q_tensorflow?" in checked(quantizer(tool="vai_q_tensorflo"), target())
    assert "quantizers.v: misses the key release" in checked({"tool": "vai_q_tensorflow2"}, target())
    assert "did you mean options?" in checked(quantizer(option={}), target())
    message = checked(images={"3.0": {"pytorch": "docker://x"}})
    assert (
        "vitis_ai.images.3.0: 'pytorch' is no framework; expected one of tensorflow, tensorflow2" in message
    )


def test_the_example_passes(repo, base):
    example = yaml.safe_load((repo / "config/vitis_ai.yaml").read_text())
    merged = {**base, **{k: {**base[k], **v} if isinstance(v, dict) else v for k, v in example.items()}}
    check(merged, repo / "config/config.schema.yaml")
    tools = {entry["tool"] for entry in merged["quantizers"].values()}
    compilers = {entry.get("compiler") for entry in merged["targets"].values()}
    assert tools >= set(releases.tools("vai_q")) and compilers >= set(releases.tools("vai_c"))


def test_entering_an_environment_fails_outside_a_container():
    import subprocess

    script = f"set -euo pipefail; {releases.enter('vai_c_xir')}; echo in"
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 1 and "--sdm apptainer" in result.stderr and not result.stdout
