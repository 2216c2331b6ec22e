from dpuflow.quantize.settings import steps


def test_steps_name_what_is_on_in_order():
    assert steps({"tool": "reference"}) == "min_diffs, equalization, output_error, fast_finetune"
    plain = {"tool": "reference", "method": "non_overflow", "equalization": False, "fast_finetune": False}
    assert steps(plain | {"position_search": {"criterion": None}}) == "non_overflow"
    assert (
        steps({"tool": "reference", "compat": "vai_q", "bias_correction": False}) == "min_diffs, compat vai_q"
    )
