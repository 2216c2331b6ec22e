"""TensorFlow's ResizeNearestNeighbor and ResizeBilinear: one handler per op, see `values`."""

from dpuflow.ops.resampling import MAX_FACTOR
from dpuflow.tfgraph.values import Node, Tensor, Translator, activation, feature_map, sizes


def _resized(translator, node, inputs):
    """(layer that is resized, (height, width) of the output, grid as `ops.resampling.GRIDS` calls it)."""
    layer = feature_map(translator, node, inputs[0])
    activation(translator, node, inputs[0])
    size = sizes(translator, node, inputs[1])
    if len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
        translator.fail(node, f"resizes to {size}; expected a height and a width")
    height, width = (n for n in size if isinstance(n, int))
    corners, half = node.attr["align_corners"].b, node.attr["half_pixel_centers"].b
    if corners and half:
        translator.fail(node, "has both align_corners and half_pixel_centers")
    return layer, (height, width), "align_corners" if corners else "half_pixel" if half else "asymmetric"


def _nearest(translator: Translator, node: Node, inputs: list) -> Tensor:
    layer, size, grid = _resized(translator, node, inputs)
    if layer.shape[:2] == size:
        return Tensor(layer.name)
    (height, width), (old_h, old_w), channels = size, layer.shape[:2], layer.shape[-1]
    if grid != "align_corners" and height % old_h == 0 and width % old_w == 0:
        factor = (width // old_w, height // old_h)
        if max(factor) <= MAX_FACTOR:
            return translator.emit(node, "upsample", [layer.name], (*size, channels), factor=factor)
    if grid == "asymmetric" and old_h % height == 0 and old_w % width == 0:
        factor = (old_w // width, old_h // height)
        if max(factor) <= MAX_FACTOR:
            return translator.emit(node, "downsample", [layer.name], (*size, channels), factor=factor)
    translator.fail(
        node,
        f"nearest from {old_h} x {old_w} to {height} x {width} pixels ({grid}); supported are whole factors "
        f"up to {MAX_FACTOR} (without align_corners; smaller ones without half_pixel_centers, too)",
    )


def _bilinear(translator: Translator, node: Node, inputs: list) -> Tensor:
    layer, (height, width), grid = _resized(translator, node, inputs)
    if layer.shape[:2] == (height, width):
        return Tensor(layer.name)
    if height > MAX_FACTOR * layer.shape[0] or width > MAX_FACTOR * layer.shape[1]:
        translator.fail(
            node, f"makes {layer.shape[0]} x {layer.shape[1]} pixels over {MAX_FACTOR} times as many"
        )
    shape = (height, width, layer.shape[-1])
    return translator.emit(node, "resize_bilinear", [layer.name], shape, size=(width, height), grid=grid)


INPUTS = dict.fromkeys(("ResizeNearestNeighbor", "ResizeBilinear"), (2, 2))
"""op -> (fewest, most) inputs."""

HANDLERS = {"ResizeBilinear": _bilinear, "ResizeNearestNeighbor": _nearest}
