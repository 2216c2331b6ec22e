"""A small quantized network, images for it and names of its classes."""

import numpy as np

from dpuflow.network import Layer, Network, QuantizedNetwork

CLASSES = ["A", "B", "C, quoted", "D", "E"]


def small_network(seed=5):
    """conv - pool - conv - dense - softmax on 12 x 12 images, random int8 parameters."""
    random = np.random.default_rng(seed)

    def window(kernel, pad=0, **more):
        return {"kernel": (kernel, kernel), "stride": (1, 1), "pad": (pad,) * 4, **more}

    conv = {"dilation": (1, 1), "activation": "RELU"}
    layers = [
        Layer("image", "input", [], (12, 12, 1)),
        Layer("conv_1", "conv", ["image"], (12, 12, 8), window(3, 1, **conv)),
        Layer("pool_1", "max_pool", ["conv_1"], (6, 6, 8), {**window(2), "stride": (2, 2)}),
        Layer("conv_2", "conv", ["pool_1"], (4, 4, 12), window(3, **conv)),
        Layer("flat", "flatten", ["conv_2"], (192,)),
        Layer("dense", "dense", ["flat"], (5,), {"activation": "NONE"}),
        Layer("softmax", "softmax", ["dense"], (5,)),
    ]
    shapes = {"conv_1": (8, 3, 3, 1), "conv_2": (12, 3, 3, 8), "dense": (5, 192)}
    weights = {n: (random.integers(-90, 91, s).astype(np.int8), 7) for n, s in shapes.items()}
    biases = {n: (random.integers(-30, 31, s[0]).astype(np.int8), 6) for n, s in shapes.items()}
    for layer in layers:
        if layer.name in weights:
            layer.weights = np.ldexp(weights[layer.name][0].astype(np.float32), -7)
            layer.bias = np.ldexp(biases[layer.name][0].astype(np.float32), -6)
    points = {"image": 7, "conv_1": 5, "pool_1": 5, "conv_2": 4, "flat": 4, "dense": 1}
    scaling = {"subtract": 128.0, "divide": 128.0}
    return QuantizedNetwork(Network("small", layers), points, weights, biases, scaling)


def small_images(count=90, seed=2):
    """uint8 images (count, 12, 12, 1) with every pixel value, and labels."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, 12, 12, 1), dtype=np.uint8)
    return images, random.integers(0, len(CLASSES), count)
