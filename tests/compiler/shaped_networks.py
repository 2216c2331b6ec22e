"""Networks given by their shapes alone, by hand."""

from dpuflow.network import Layer, Network


class Builder:
    """Layers with 'same' padding, for networks given by their shapes alone."""

    def __init__(self, shape):
        self.layers = [Layer("in", "input", [], shape)]

    def shape(self, name):
        return next(layer.shape for layer in self.layers if layer.name == name)

    def put(self, op, inputs, shape, **attrs):
        name = f"{op}{len(self.layers)}"
        self.layers.append(Layer(name, op, list(inputs), shape, attrs))
        return name

    def window(self, op, source, channels, kernel, stride=1, pad=None):
        pad = kernel // 2 if pad is None else pad
        height, width, before = self.shape(source)
        out = [(size + 2 * pad - kernel) // stride + 1 for size in (height, width)]
        attrs = {"kernel": (kernel, kernel), "stride": (stride, stride), "pad": (pad,) * 4}
        if op.endswith("conv"):
            attrs |= {"dilation": (1, 1), "activation": "RELU"}
        return self.put(op, [source], (*out, channels or before), **attrs)

    def conv(self, source, channels, kernel, stride=1, pad=None):
        return self.window("conv", source, channels, kernel, stride, pad)

    def join(self, op, a, b):
        height, width, channels = self.shape(a)
        total = channels + self.shape(b)[2] if op == "concat" else channels
        attrs = {"axis": 3} if op == "concat" else {"activation": "RELU"}
        return self.put(op, [a, b], (height, width, total), **attrs)

    def network(self):
        return Network("n", self.layers)


def residual_50():
    """ResNet-50 at 224 x 224 (stride in the first 1 x 1 of a stage)."""
    return residual_deep((3, 4, 6, 3))


def residual_deep(counts):
    """The same with other numbers of blocks."""
    b = Builder((224, 224, 3))
    x = b.window("max_pool", b.conv("in", 64, 7, 2), None, 3, 2)
    for stage, (blocks, channels) in enumerate(zip(counts, (64, 128, 256, 512), strict=True)):
        for block in range(blocks):
            stride = 2 if block == 0 and stage else 1
            y = b.conv(b.conv(b.conv(x, channels, 1, stride), channels, 3), 4 * channels, 1)
            x = b.join("add", y, b.conv(x, 4 * channels, 1, stride) if block == 0 else x)
    b.conv(b.window("avg_pool", x, None, 7, 7, 0), 1000, 1)
    return b.network()


def mobile(width, size):
    """MobileNet V1."""
    b = Builder((size, size, 3))
    x = b.conv("in", round(32 * width), 3, 2)
    for channels, stride in (
        [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)] + [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
    ):
        x = b.conv(b.window("depthwise_conv", x, None, 3, stride), round(channels * width), 1)
    b.conv(b.window("avg_pool", x, None, size // 32, 1, 0), 1000, 1)
    return b.network()


def mobile_quarter():
    """MobileNet V1, width 0.25, at 128 x 128."""
    return mobile(0.25, 128)


def inverted(width=1.0):
    """MobileNet V2 at 224 x 224."""
    b = Builder((224, 224, 3))
    x, last = b.conv("in", 32, 3, 2), 32
    for expansion, channels, blocks, stride in [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
    ] + [
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]:
        channels = round(channels * width / 8) * 8
        for block in range(blocks):
            y = b.conv(x, expansion * last, 1) if expansion > 1 else x
            y = b.conv(b.window("depthwise_conv", y, None, 3, stride if block == 0 else 1), channels, 1)
            x, last = (b.join("add", y, x) if block else y), channels
    b.conv(b.window("avg_pool", b.conv(x, 1280, 1), None, 7, 7, 0), 1000, 1)
    return b.network()


def residual_18():
    """ResNet-18 at 224 x 224."""
    b = Builder((224, 224, 3))
    x = b.window("max_pool", b.conv("in", 64, 7, 2), None, 3, 2)
    for stage, channels in enumerate((64, 128, 256, 512)):
        for stride in (2 if stage else 1, 1):
            y = b.conv(b.conv(x, channels, 3, stride), channels, 3)
            x = b.join("add", y, b.conv(x, channels, 1, stride) if stride > 1 else x)
    b.conv(b.window("avg_pool", x, None, 7, 7, 0), 1000, 1)
    return b.network()


def vgg_16():
    """VGG16 at 224 x 224."""
    b = Builder((224, 224, 3))
    x = "in"
    for channels, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            x = b.conv(x, channels, 3)
        x = b.window("max_pool", x, None, 2, 2, 0)
    x = b.put("flatten", [x], (25088,))
    for units in (4096, 4096, 1000):
        x = b.put("dense", [x], (units,), activation="NONE")
    return b.network()


def squeeze():
    """SqueezeNet 1.1 at 224 x 224."""
    b = Builder((224, 224, 3))
    x = b.window("max_pool", b.conv("in", 64, 3, 2), None, 3, 2, 0)
    for squeezed, expanded, pooled in [(16, 64, 0), (16, 64, 1), (32, 128, 0), (32, 128, 1)] + [
        (48, 192, 0),
        (48, 192, 0),
        (64, 256, 0),
        (64, 256, 0),
    ]:
        y = b.conv(x, squeezed, 1)
        x = b.join("concat", b.conv(y, expanded, 1), b.conv(y, expanded, 3))
        if pooled:
            x = b.window("max_pool", x, None, 3, 2, 0)
    x = b.conv(x, 1000, 1)
    b.window("avg_pool", x, None, b.shape(x)[0], 1, 0)
    return b.network()


def residual_unit():
    """Blocks of 1 x 1, 3 x 3 and 1 x 1 at 14 x 14 whose shortcuts are large."""
    b = Builder((14, 14, 512))
    x = "in"
    for _ in range(3):
        x = b.join("add", b.conv(b.conv(b.conv(x, 128, 1), 128, 3), 512, 1), x)
    b.window("avg_pool", x, None, 14, 14, 0)
    return b.network()


def dense_concats():
    """Concats of concats, as DenseNet has them, at 28 x 28."""
    b = Builder((28, 28, 64))
    x = b.conv("in", 64, 3)
    for _ in range(4):
        x = b.join("concat", x, b.conv(b.conv(x, 128, 1), 32, 3))
    b.window("avg_pool", x, None, 28, 28, 0)
    return b.network()


def small_digits():
    """Four convolutions on 28 x 28, about the size of the vendor's MNIST tutorial."""
    b = Builder((28, 28, 1))
    x = b.conv(b.conv("in", 16, 3, 2), 32, 3, 2)
    b.conv(b.conv(x, 64, 3, 2), 10, 4, 1, 0)
    return b.network()
