"""Shape rules of ops that work on maps (N, H, W, C): windows, resampling, pixels into channels.

Rules of XIR 3.5 (docs/reference/xmodel.md): kernel, stride, dilation are (w, h), pad is
(left, right, top, bottom); -fix ops always round down (FLOOR) whatever their pad_mode.
"""

import math
from collections.abc import Mapping, Sequence

from dpuflow.xir import opdefs
from dpuflow.xir.nodes import Op, Shape, Tensor
from dpuflow.xir.shape_checks import ShapeError, numbers, one_shape

Inputs = Mapping[str, Sequence[Tensor]]

MAX_PAD = 255
"""Far beyond what a network's window pads by (the DPU's fields end at 15); bounds memory."""
MAX_SCALE = 256
"""Of resampling, either way; bounds memory as well."""


def window_output(size: int, kernel: int, stride: int, dilation: int, pad: int, mode: str = "FLOOR") -> int:
    """Output length along one axis; `pad` is the sum of both sides (docs/reference/xmodel.md, pad_mode)."""
    extent = (kernel - 1) * dilation + 1
    if mode == "FLOOR":
        return (size + pad - extent + stride) // stride
    if mode == "CEIL":
        return -((extent - size - pad - stride) // stride)
    if mode == "SAME":
        return math.ceil((size + pad) / stride)
    if mode == "VALID":
        return math.ceil((size + pad - (kernel - 1) * dilation) / stride)
    raise ShapeError(f"pad_mode {mode!r} is not FLOOR, CEIL, SAME or VALID")


def _window(op, shape):
    """Spatial output (height, width) of a convolution or pool over `shape` (N, H, W, C)."""
    kernel_w, kernel_h = numbers(op, "kernel", 2, 1)
    stride_w, stride_h = numbers(op, "stride", 2, 1)
    left, right, top, bottom = numbers(op, "pad", 4, 0)
    if max(left, right, top, bottom) > MAX_PAD:
        raise ShapeError(f"pad {[left, right, top, bottom]} exceeds {MAX_PAD}")
    dilation_w, dilation_h = (
        numbers(op, "dilation", 2, 1) if "dilation" in opdefs.OPDEFS[op.type].attrs else (1, 1)
    )
    mode = "FLOOR" if op.type.endswith("-fix") else op.attr("pad_mode")
    return (
        window_output(shape[1], kernel_h, stride_h, dilation_h, top + bottom, mode),
        window_output(shape[2], kernel_w, stride_w, dilation_w, left + right, mode),
    )


def conv(op: Op, inputs: Inputs) -> Shape:
    """Of a convolution, plain, in groups or depthwise."""
    shape, weights = one_shape(inputs, "input", 4), one_shape(inputs, "weights", 4)
    kernel_w, kernel_h = numbers(op, "kernel", 2, 1)
    if weights[1:3] != (kernel_h, kernel_w):
        raise ShapeError(f"weights {list(weights)} do not have the kernel (w, h) = ({kernel_w}, {kernel_h})")
    if op.type.startswith("depthwise"):
        if weights[3] != shape[3]:
            raise ShapeError(f"weights {list(weights)} do not have the input's {shape[3]} channels")
        channels = weights[0] * weights[3]
    else:
        group = op.attr("group")
        if group < 1 or weights[3] * group != shape[3] or weights[0] % group:
            raise ShapeError(f"weights {list(weights)} do not fit {shape[3]} channels in {group} group(s)")
        channels = weights[0]
    if "bias" in inputs and math.prod(one_shape(inputs, "bias")) != channels:
        raise ShapeError(f"bias {list(one_shape(inputs, 'bias'))} does not have {channels} elements")
    return shape[0], *_window(op, shape), channels


def transposed_conv(op: Op, inputs: Inputs) -> Shape:
    """Of a transposed convolution, plain or depthwise."""
    shape, weights = one_shape(inputs, "input", 4), one_shape(inputs, "weights", 4)
    kernel_w, kernel_h = numbers(op, "kernel", 2, 1)
    depthwise = "depthwise" in op.type
    if weights[1:] != (kernel_h, kernel_w, shape[3]):
        raise ShapeError(f"weights {list(weights)} do not fit kernel {(kernel_w, kernel_h)} on {list(shape)}")
    stride_w, stride_h = numbers(op, "stride", 2, 1)
    dilation_w, dilation_h = numbers(op, "dilation", 2, 1)
    left, right, top, bottom = numbers(op, "pad", 4, 0)
    mode = "FLOOR" if op.type.endswith("-fix") else op.attr("pad_mode")
    height = _transposed_output(shape[1], kernel_h, stride_h, dilation_h, top + bottom, mode)
    width = _transposed_output(shape[2], kernel_w, stride_w, dilation_w, left + right, mode)
    return shape[0], height, width, weights[0] * weights[3] if depthwise else weights[0]


def _transposed_output(size, kernel, stride, dilation, pad, mode):
    """Length of a transposed convolution along one axis, by XIR's inference."""
    if mode in ("FLOOR", "CEIL"):
        return (size - 1) * stride + (kernel - 1) * dilation + 1 - pad
    if mode == "SAME":
        return size * stride
    if mode == "VALID":
        return (size - 1) * stride + kernel
    raise ShapeError(f"pad_mode {mode!r} is not FLOOR, CEIL, SAME or VALID")


def resample(op: Op, inputs: Inputs, size: list[int] | None) -> Shape:
    """`size` (h, w) where the op has that argument.

    Else upsample-fix and resize cut a fraction of a pixel off, downsample-fix makes one of it; scale: (w, h).
    """
    (batch, height, width, channels), scale = one_shape(inputs, "input", 4), op.attr("scale")
    if size is not None:
        if len(size) != 2 or max(size) > MAX_SCALE * max(height, width):
            raise ShapeError(
                f"its argument 'size' {size} is no height and width up to {MAX_SCALE} times the map"
            )
        return batch, *size, channels
    if len(scale) != 2 or not all(math.isfinite(factor) and 0 < factor <= MAX_SCALE for factor in scale):
        raise ShapeError(f"scale must be two numbers above 0 and up to {MAX_SCALE}, found {scale}")
    if op.type == "downsample-fix":
        return batch, math.ceil(height / scale[1]), math.ceil(width / scale[0]), channels
    return batch, int(height * scale[1]), int(width * scale[0]), channels


def pool(op: Op, inputs: Inputs) -> Shape:
    """Of a pool; one place where it is `global`."""
    shape = one_shape(inputs, "input", 4)
    if op.type != "pool-fix" and op.attr("global"):
        return shape[0], 1, 1, shape[3]
    return shape[0], *_window(op, shape), shape[3]


def pixel_shuffle(op: Op, inputs: Inputs) -> Shape:
    """Pixels into channels, or with `upscale` (`reverse`) channels into pixels."""
    (batch, height, width, channels), scale = one_shape(inputs, "input", 4), op.attr("scale")
    if not 1 <= scale <= MAX_SCALE:
        raise ShapeError(f"scale must be a number of 1 to {MAX_SCALE}, found {scale}")
    if op.attrs["upscale"] if "upscale" in op.attrs else op.attr("reverse"):
        if channels % scale**2:
            raise ShapeError(f"{channels} channels do not make blocks of {scale} x {scale} pixels")
        return batch, height * scale, width * scale, channels // scale**2
    if height % scale or width % scale:
        raise ShapeError(f"{height} x {width} pixels are no blocks of {scale} x {scale}")
    return batch, height // scale, width // scale, channels * scale**2
