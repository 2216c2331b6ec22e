"""The shapes of a layer list, without TensorFlow: what a DPU's limits are checked on before training.

`network_of` says what `model_builder.build_model`, freezing and folding make of a list: the same
ops with the same windows and shapes, but no parameters, and without the convolution that puts a block's
channels into another order where no layer can take that over. A test holds the two together.
"""

from collections.abc import Sequence
from typing import Any

from dpuflow.base.errors import UserError
from dpuflow.network import Layer, Network
from dpuflow.ops.operator import Shape
from dpuflow.training import Entry
from dpuflow.training.model_builder import ANCHORS, check_last, check_map

FUSED = {"none": "NONE", "relu": "RELU", "relu6": "RELU6", "leaky_relu": "LEAKYRELU"}
"""Activation of the configuration -> the layer's own."""
GATES = ("hard_sigmoid", "hard_swish")
"""Activations that are layers of their own."""


def network_of(
    layers: Sequence[Entry],
    image_shape: Sequence[int],
    classes: int,
    name: str,
    task: str = "classification",
) -> Network:
    """A folded Network without parameters; its layers go by their place in the configuration.

    layers : list of layer entries; image_shape : (H, W, C); classes : number of class names; task : of the
        data set.
    UserError names the entry whose shape does not fit.
    """
    shapes = _Shapes(image_shape, classes if task == "detection" else None)
    path = f"models.{name}.layers"
    last = shapes.stack("input", layers, path)
    if task == "detection":
        check_last(path, layers)
        return Network(name, shapes.layers, {head: head for head in shapes.heads})
    if task == "segmentation":
        check_map(path, shapes.map(last, path), tuple(image_shape))
        shapes.convolution(last, {"kernel": 1}, "logits", "conv", classes)
        return Network(name, shapes.layers)
    if len(shapes.of(last)) != 1:
        raise UserError(
            f"{path}: the last layer leaves a map of {_text(shapes.of(last))}; "
            "end the list with flatten, global_average_pool or dense"
        )
    logits = shapes.add("logits", "dense", [last], (classes,), activation="NONE")
    shapes.add("probabilities", "softmax", [logits], (classes,))
    return Network(name, shapes.layers)


def _text(shape):
    return " x ".join(map(str, shape))


class _Shapes:
    def __init__(self, image_shape, detected=None):
        """detected : as of `model_builder._Builder`."""
        self.detected = detected
        self.heads = []
        self.layers = [Layer("input", "input", [], tuple(image_shape))]
        self.shapes = {"input": tuple(image_shape)}

    def of(self, name: str) -> Shape:
        return self.shapes[name]

    def add(self, name: str, op: str, inputs: list[str], shape: Shape, **attrs: Any) -> str:
        """Append a layer; returns its name."""
        self.layers.append(Layer(name, op, inputs, shape, attrs))
        self.shapes[name] = shape
        return name

    def stack(self, source: str, entries: Sequence[Entry], path: str) -> str:
        """Append a list of entries; returns the name of its output."""
        for index, entry in enumerate(entries):
            kind, options = next(iter(entry.items())) if isinstance(entry, dict) else (entry, None)
            where = f"{path}[{index}].{kind}" if isinstance(entry, dict) else f"{path}[{index}] ({kind})"
            source = LAYERS[kind](self, source, options, where)
            if min(self.of(source)) < 1:
                raise UserError(f"{where}: leaves an empty map ({_text(self.of(source))})")
        return source

    def map(self, source: str, where: str) -> Shape:
        """(H, W, C) of a map."""
        if len(self.of(source)) != 3:
            raise UserError(f"{where}: needs a map, but its input is a vector of {_text(self.of(source))}")
        return self.of(source)

    def window(
        self, source: str, where: str, kernel: int, stride: int, padding: str, dilation: int = 1
    ) -> tuple[tuple[int, ...], dict[str, Any]]:
        """((out H, out W), attrs but the dilation) of a square window."""
        span = (kernel - 1) * dilation + 1
        height, width, _ = self.map(source, where)
        sides, pads = [], []
        for side in (width, height):
            if padding == "same":
                out = -(-side // stride)
                total = max((out - 1) * stride + span - side, 0)
            else:
                out, total = max((side - span) // stride + 1, 0), 0
            sides.append(out)
            pads += [total // 2, total - total // 2]
        attrs = {"kernel": (kernel, kernel), "stride": (stride, stride), "pad": tuple(pads)}
        return tuple(reversed(sides)), attrs

    def activated(
        self, name: str, op: str, inputs: list[str], shape: Shape, options: Any, **attrs: Any
    ) -> str:
        """Append a layer with its entry's activation: its own, or a gate behind it."""
        activation = options.get("activation", "none")
        if activation not in GATES:
            return self.add(name, op, inputs, shape, **attrs, activation=FUSED[activation])
        linear = self.add(f"{name} (linear)", op, inputs, shape, **attrs, activation="NONE")
        swish = activation == "hard_swish"
        gate = self.add(f"{name} (gate)" if swish else name, "hard_sigmoid", [linear], shape)
        return self.add(name, "multiply", [linear, gate], shape) if swish else gate

    def conv(self, source: str, options: Any, where: str) -> str:
        channels, groups = self.map(source, where)[2], options.get("groups", 1)
        for what, count in (("input", channels), ("output", options["filters"])):
            if count % groups:
                raise UserError(f"{where}: {count} {what} channels do not divide into {groups} groups")
        return self.convolution(source, options, where, "conv", options["filters"])

    def depthwise_conv(self, source: str, options: Any, where: str) -> str:
        options = options or {}
        channels, multiplier = self.map(source, where)[2], options.get("multiplier", 1)
        op = "depthwise_conv" if multiplier == 1 else "conv"
        return self.convolution(source, options, where, op, channels * multiplier, spread=True)

    def convolution(
        self, source: str, options: Any, where: str, op: str, channels: int, spread: bool = False
    ) -> str:
        """spread : a dilated kernel is written out with zeros."""
        kernel, stride = options.get("kernel", 3), options.get("stride", 1)
        dilation, padding = options.get("dilation", 1), options.get("padding", "same")
        if dilation > 1 and stride > 1:
            raise UserError(f"{where}: has a stride and a dilation; Keras takes one of them")
        size, attrs = self.window(source, where, kernel, stride, padding, dilation)
        if spread:
            span = (kernel - 1) * dilation + 1
            attrs["kernel"], dilation = (span, span), 1
        attrs["dilation"] = (dilation, dilation)
        return self.activated(where, op, [source], (*size, channels), options, **attrs)

    def transposed_conv(self, source: str, options: Any, where: str) -> str:
        height, width, _ = self.map(source, where)
        kernel, stride = options.get("kernel", 2), options.get("stride", 2)
        cut = kernel - stride
        if cut < 0:
            raise UserError(f"{where}: a kernel of {kernel} is smaller than the stride {stride}")
        pad = (cut // 2, cut - cut // 2)
        attrs = {"kernel": (kernel, kernel), "stride": (stride, stride), "dilation": (1, 1), "pad": pad * 2}
        shape = (height * stride, width * stride, options["filters"])
        return self.activated(where, "transposed_conv", [source], shape, options, **attrs)

    def dense(self, source: str, options: Any, where: str) -> str:
        options = {"units": options} if isinstance(options, int) else options
        shape = self.of(source)
        if len(shape) == 3:  # the same for every pixel: a convolution with a window of one
            one = {"filters": options["units"], "kernel": 1, "activation": options.get("activation", "none")}
            return self.convolution(source, one, where, "conv", options["units"])
        return self.activated(where, "dense", [source], (options["units"],), options)

    def pool(self, source: str, options: Any, where: str, op: str) -> str:
        options = {"kernel": options} if isinstance(options, int) else options
        kernel = options.get("kernel", 2)
        stride, padding = options.get("stride", kernel), options.get("padding", "valid")
        size, attrs = self.window(source, where, kernel, stride, padding)
        if op == "avg_pool" and any(attrs["pad"]):
            op = "avg_pool_inside"
        return self.add(where, op, [source], (*size, self.of(source)[2]), **attrs)

    def upsample(self, source: str, options: Any, where: str) -> str:
        options = {"factor": options} if isinstance(options, int) else options
        (height, width, channels), factor = self.map(source, where), options["factor"]
        shape = (height * factor, width * factor, channels)
        if options.get("interpolation", "nearest") == "nearest":
            return self.add(where, "upsample", [source], shape, factor=(factor, factor))
        attrs = {"size": (shape[1], shape[0]), "grid": "half_pixel"}
        return self.add(where, "resize_bilinear", [source], shape, **attrs)

    def global_pool(self, source: str, options: Any, where: str, op: str) -> str:
        height, width, channels = self.map(source, where)
        whole = {"kernel": (width, height), "stride": (1, 1), "pad": (0, 0, 0, 0)}
        pooled = self.add(where, op, [source], (1, 1, channels), **whole)
        return self.add(f"{where}, flattened", "flatten", [pooled], (channels,))

    def space_to_depth(self, source: str, block: Any, where: str) -> str:
        height, width, channels = self.map(source, where)
        if height % block or width % block:
            raise UserError(f"{where}: a map of {height} x {width} does not divide into blocks of {block}")
        shape = (height // block, width // block, channels * block**2)
        return self.add(where, "pixel_shuffle", [source], shape, scale=block, upscale=False)

    def depth_to_space(self, source: str, block: Any, where: str) -> str:
        height, width, channels = self.map(source, where)
        if channels % block**2:
            raise UserError(f"{where}: {channels} channels do not divide into blocks of {block} x {block}")
        shape = (height * block, width * block, channels // block**2)
        return self.add(where, "pixel_shuffle", [source], shape, scale=block, upscale=True)

    def flatten(self, source: str, options: Any, where: str) -> str:
        height, width, channels = (*self.of(source), 1, 1)[:3]
        return self.add(where, "flatten", [source], (height * width * channels,))

    def dropout(self, source: str, options: Any, where: str) -> str:
        return source

    def squeeze_excite(self, source: str, options: Any, where: str) -> str:
        height, width, channels = self.map(source, where)
        whole = {"kernel": (width, height), "stride": (width, height), "pad": (0, 0, 0, 0)}
        squeezed = self.add(f"{where} (squeeze)", "avg_pool", [source], (1, 1, channels), **whole)
        few = max(1, channels // options)
        relu, plain = {"kernel": 1, "activation": "relu"}, {"kernel": 1}
        narrow = self.convolution(squeezed, relu, f"{where} (narrow)", "conv", few)
        wide = self.convolution(narrow, plain, f"{where} (wide)", "conv", channels)
        gate = self.add(f"{where} (gate)", "hard_sigmoid", [wide], (1, 1, channels))
        return self.add(where, "multiply", [source, gate], (height, width, channels))

    def residual(self, source: str, options: Any, where: str) -> str:
        body = self.stack(source, options["layers"], f"{where}.layers")
        shortcut, wanted = source, self.of(body)
        if wanted != self.of(source):
            stride = -(-self.map(source, where)[0] // self.map(body, where)[0])
            entry = {"filters": wanted[-1], "kernel": 1, "stride": stride}
            shortcut = self.convolution(source, entry, f"{where} (shortcut)", "conv", wanted[-1])
        if self.of(shortcut) != wanted:
            raise UserError(
                f"{where}: its layers leave {_text(wanted)}, which a 1x1 convolution of its input "
                f"({_text(self.of(source))}) cannot become; keep the size or halve it (padding: same)"
            )
        activation = FUSED[options.get("activation", "relu")]
        return self.add(where, "add", [body, shortcut], wanted, activation=activation)

    def concat(self, source: str, options: Any, where: str) -> str:
        ends = [
            self.stack(source, branch, f"{where}.branches[{index}]")
            for index, branch in enumerate(options["branches"])
        ]
        shapes = [self.of(end) for end in ends]
        if len({shape[:-1] for shape in shapes}) != 1:
            found = " and ".join(_text(shape) for shape in shapes)
            raise UserError(f"{where}: branches end in {found}; all but the channels must be equal")
        shape = (*shapes[0][:-1], sum(shape[-1] for shape in shapes))
        return self.add(where, "concat", ends, shape, axis=len(shape))

    def head(self, source: str, options: Any, where: str) -> str:
        if self.detected is None:
            raise UserError(f"{where}: a head is for data sets of the task detection")
        channels = (options or {}).get("anchors", ANCHORS) * (5 + self.detected)
        self.heads.append(self.convolution(source, {"kernel": 1}, where, "conv", channels))
        return source


LAYERS = {
    "conv": _Shapes.conv,
    "depthwise_conv": _Shapes.depthwise_conv,
    "transposed_conv": _Shapes.transposed_conv,
    "dense": _Shapes.dense,
    "max_pool": lambda shapes, *rest: shapes.pool(*rest, "max_pool"),
    "avg_pool": lambda shapes, *rest: shapes.pool(*rest, "avg_pool"),
    "global_average_pool": lambda shapes, *rest: shapes.global_pool(*rest, "avg_pool"),
    "global_max_pool": lambda shapes, *rest: shapes.global_pool(*rest, "max_pool"),
    "upsample": _Shapes.upsample,
    "space_to_depth": _Shapes.space_to_depth,
    "depth_to_space": _Shapes.depth_to_space,
    "squeeze_excite": _Shapes.squeeze_excite,
    "residual": _Shapes.residual,
    "concat": _Shapes.concat,
    "head": _Shapes.head,
    "flatten": _Shapes.flatten,
    "dropout": _Shapes.dropout,
}
"""As in `model_builder.LAYERS`."""
