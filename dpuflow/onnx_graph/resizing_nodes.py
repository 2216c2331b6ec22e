"""ONNX's resizing and transposed convolution: one handler per operator, see `values`."""

from collections.abc import Sequence

import numpy as np

from dpuflow.onnx_graph.graph import Node
from dpuflow.onnx_graph.values import Reader, Value, feature_map, whole_map

GRIDS = {
    "half_pixel": "half_pixel",
    "pytorch_half_pixel": "half_pixel",
    "asymmetric": "asymmetric",
    "align_corners": "align_corners",
}
"""coordinate_transformation_mode -> grid of a bilinear resizing."""


def nearest(size: int, count: int, mode: str, rounding: str) -> np.ndarray:
    """For each of `count` output places the input place, of `size`, by ONNX's definition of Resize."""
    out, scale = np.arange(count, dtype=np.float64), count / size
    places = {
        "half_pixel": (out + 0.5) / scale - 0.5,
        "pytorch_half_pixel": (out + 0.5) / scale - 0.5 if count > 1 else out * 0,
        "asymmetric": out / scale,
        "align_corners": out * (size - 1) / (count - 1) if count > 1 else out * 0,
    }[mode]
    rounded = {
        "round_prefer_floor": np.ceil(places - 0.5),
        "round_prefer_ceil": np.floor(places + 0.5),
        "floor": np.floor(places),
        "ceil": np.ceil(places),
    }[rounding]
    return np.clip(rounded, 0, size - 1).astype(np.int64)


def _resize(reader: Reader, node: Node, inputs: Sequence[Value | None]) -> Value:
    layer, pending = feature_map(reader, node, inputs[0])
    if any(pending):
        reader.fail(node, "zero padding before resizing")
    channels = layer.shape[-1]
    batch, depth, *size = reader.shape(node, node.outputs[0])
    if (batch, depth) != (1, channels) or len(size) != 2:
        reader.fail(node, "resizes another axis than height and width")
    attrs = {key: value.decode() for key, value in node.attrs.items() if isinstance(value, bytes)}
    # Upsample, and Resize of opset 10, have no mode for coordinates: those are asymmetric
    old = node.op == "Upsample" or reader.opset < 11
    mode = "asymmetric" if old else attrs.get("coordinate_transformation_mode", "half_pixel")
    if mode not in GRIDS or node.attrs.get("antialias", 0):
        reader.fail(node, f"resizing with {mode!r} or antialias; use half_pixel, asymmetric or align_corners")
    kind = attrs.get("mode", "nearest")
    if kind == "nearest":
        rounding = "floor" if old else attrs.get("nearest_mode", "round_prefer_floor")
        return _nearest(reader, node, layer, size, mode, rounding)
    if kind not in ("linear", "bilinear"):
        reader.fail(node, f"resizing of the kind {kind!r}; the DPU has nearest and linear")
    shape = (*size, channels)
    made = reader.emit(node, "resize_bilinear", [layer.name], shape, size=tuple(size[::-1]), grid=GRIDS[mode])
    return whole_map(made)


def _nearest(reader, node, layer, size, mode, rounding):
    height, width, channels = layer.shape
    places = [nearest(n, count, mode, rounding) for n, count in zip((height, width), size, strict=True)]
    for op, factors, wanted in (
        ("upsample", [m // n for m, n in zip(size, (height, width), strict=True)], lambda k, f: k // f),
        ("downsample", [-(-n // m) for m, n in zip(size, (height, width), strict=True)], lambda k, f: k * f),
    ):
        if all(
            factor >= 1 and np.array_equal(found, wanted(np.arange(len(found)), factor))
            for found, factor in zip(places, factors, strict=True)
        ):
            shape = (*size, channels)
            if op == "downsample" and shape[:2] != (-(-height // factors[0]), -(-width // factors[1])):
                continue
            made = reader.emit(node, op, [layer.name], shape, factor=tuple(factors[::-1]))
            return whole_map(made)
    reader.fail(
        node,
        f"nearest resizing of {height} x {width} to {size[0]} x {size[1]} ({mode}, {rounding}); the DPU "
        "repeats each pixel by whole factors",
    )


HANDLERS = {"Resize": _resize, "Upsample": _resize}
"""Operator -> handler."""
