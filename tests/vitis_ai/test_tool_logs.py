"""Logs of the vendor's tools, in their documented forms."""

from pathlib import Path

import pytest

from dpuflow.base.errors import UserError
from dpuflow.vitis_ai.tool_logs import compiler_log, layer_name, quantizer_log, read_log

LOGS = Path(__file__).with_name("logs")


def altered(tmp_path, name, old, new):
    path = tmp_path / name
    text = (LOGS / name).read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    return path


def test_adjustments_and_warnings_of_vai_q_tensorflow():
    found = quantizer_log(LOGS / "vai_q_tensorflow.log", "vai_q_tensorflow")
    assert found["adjustments"] == [
        {"tensor": "block/conv2/weights", "from": 6, "to": 7, "why": "shift_cut was -1"},
        {"tensor": "logits/bias", "from": 2, "to": 4, "why": "shift_bias was 18"},
    ]
    assert found["warnings"] == [
        "Convert mean node pool/Mean to AvgPool",
        "Scale output of avg_pool node pool/Mean to simulate DPU.",
    ]
    assert found["stand_in"] is False


def test_adjustments_and_warnings_of_vai_q_tensorflow2():
    found = quantizer_log(LOGS / "vai_q_tensorflow2.log", "vai_q_tensorflow2")
    assert found["adjustments"] == [{"tensor": "logits/bias", "from": 3, "to": 4, "why": "shift_bias was 17"}]
    assert found["warnings"] == ["Layer pool is not quantized, fail to get its opos."]


def test_progress_bars_are_lines_of_their_own():
    lines = read_log(LOGS / "vai_q_tensorflow.log")
    assert "100% (15 of 15) |####| Elapsed Time: 0:00:09 Time:  0:00:09" in lines


@pytest.mark.parametrize(
    ("name", "tool", "last"),
    [
        ("vai_q_tensorflow.log", "vai_q_tensorflow", "quantize_eval_model:"),
        ("vai_q_tensorflow2.log", "vai_q_tensorflow2", "Quantization Finished"),
    ],
)
def test_a_quantizer_that_did_not_finish_is_no_success(tmp_path, name, tool, last):
    with pytest.raises(UserError, match="does not report that it finished"):
        quantizer_log(altered(tmp_path, name, last, "..."), tool)


def test_positions_that_were_never_set_are_told_as_such(tmp_path):
    path = altered(
        tmp_path, "vai_q_tensorflow.log", "modify quantize pos from 2 to 4",
        "modify quantize pos from 5 to -2147483632",
    )  # fmt: skip
    with pytest.raises(UserError, match=r"logits.*-2147483632.*output node"):
        quantizer_log(path, "vai_q_tensorflow")


def test_compiler_log():
    found = compiler_log(LOGS / "vai_c.log", "vai_c_tensorflow")
    assert found["target"] == "DPUCZDX8G_ISA1_B4096"
    assert (found["subgraphs"], found["dpu_subgraphs"]) == (5, 2)
    assert found["md5"] == "635a7ac74171877a1471de5a2644e64c"
    assert found["on_cpu"] == [
        {"name": "head/Sigmoid", "op": "sigmoid", "reason": "DPU does not support sigmoid"},
        {"name": "probabilities/Softmax", "op": "softmax", "reason": ""},
    ]
    assert found["warnings"] == ["The input shape of the model is not fixed."]


@pytest.mark.parametrize("level", ["ERROR", "FATAL"])
def test_an_error_of_the_compiler_is_reported(tmp_path, level):
    path = altered(tmp_path, "vai_c.log", "[UNILOG][WARNING] The input", f"[UNILOG][{level}] The input")
    with pytest.raises(
        UserError, match="vai_c_xir reports an error: The input shape of the model is not fixed"
    ):
        compiler_log(path, "vai_c_xir")


def test_an_unfinished_compilation_is_no_success(tmp_path):
    with pytest.raises(UserError, match="does not report that it finished"):
        compiler_log(altered(tmp_path, "vai_c.log", "Compile done.", ""), "vai_c_xir")


@pytest.mark.parametrize(
    ("node", "layer"), [("conv1/Conv2D", "conv1"), ("a/b/MatMul", "a/b"), ("input", "input")]
)
def test_layer_of_a_node(node, layer):
    assert layer_name(node) == layer
