"""The golden op cases as operations of the emulator."""

from dpuflow.emulator.operations import Conv, Eltwise, Nonlinear, Pool


def operation(case, arrays):
    """(operation, inputs, expected output) of one entry of ops.json."""
    name, fix = case["id"], case["fix_point"]
    expected = arrays[f"{name}_output"]
    nonlinear = Nonlinear(case.get("nonlinear", "NONE"))
    if case["op"] == "eltwise-fix":
        op = Eltwise(case["type"], tuple(fix["input"]), fix["output"], nonlinear)
        return op, [arrays[f"{name}_input_0"], arrays[f"{name}_input_1"]], expected
    inputs = [arrays[f"{name}_input"]]
    kernel, stride, pad = (tuple(case[key]) for key in ("kernel", "stride", "pad"))
    if case["op"] == "pool-fix":
        return Pool(case["type"], kernel, stride, pad, fix["input"] - fix["output"]), inputs, expected
    scale = fix["input"] + fix["weights"]
    bias = None if fix["bias"] is None else arrays[f"{name}_bias"]
    op = Conv(
        kind="depthwise" if case["op"].startswith("depthwise") else "conv2d",
        weights=arrays[f"{name}_weights"],
        bias=bias,
        stride=stride,
        dilation=tuple(case["dilation"]),
        pad=pad,
        shift_cut=scale - fix["output"],
        shift_bias=0 if bias is None else scale - fix["bias"],
        fix_out=fix["output"],
        nonlinear=nonlinear,
    )
    return op, inputs, expected
