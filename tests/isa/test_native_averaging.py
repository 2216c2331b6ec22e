"""Average pooling of what lies in the map, in machine code: every size, map by map equal to the emulator."""

import numpy as np
import pytest
from quantized_builder import Builder
from test_native_resizing import SIZES, batch

from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.isa.runner import IsaRunner
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.emulator import Emulator


def random_network(seed):
    """Average pools with padding between convolutions, kernels and strides of all kinds."""
    random = np.random.default_rng(seed)
    b = Builder((int(random.integers(5, 40)), int(random.integers(5, 40)), int(random.choice([3, 17]))), seed)
    x = b.conv("input", int(random.choice([5, 16, 40]))) if random.random() < 0.7 else "input"
    for _ in range(2):
        height, width, channels = b.shape(x)
        kernel = tuple(int(n) for n in random.integers(2, min(6, height, width) + 1, 2))
        stride = tuple(int(random.integers(1, k + 1)) for k in kernel)
        pad = tuple(int(random.integers(0, kernel[i // 2])) for i in range(4))
        out_h = (height + pad[2] + pad[3] - kernel[1]) // stride[1] + 1
        out_w = (width + pad[0] + pad[1] - kernel[0]) // stride[0] + 1
        attrs = {"kernel": kernel, "stride": stride, "pad": pad}
        x = b.layer("avg_pool_inside", [x], (out_h, out_w, channels), **attrs)
        x = b.conv(x, 9)
    x = b.pool(x, "max_pool", (-(-b.shape(x)[1] // 8), -(-b.shape(x)[0] // 8)))
    return b.quantized(f"averaged{seed}", b.dense(b.flatten(x), 10))


@pytest.mark.parametrize(("size", "seed"), [(size, seed) for seed, size in enumerate(SIZES)])
def test_random_networks_on_every_size(size, seed):
    compiled = compile_native(random_network(seed), get_target(f"DPUCZDX8G_ISA1_{size}"))  # map by map
    images = batch(compiled.graph)
    expected = Emulator(compiled.graph).run(images)
    np.testing.assert_array_equal(IsaRunner(compiled.graph).run(images), expected)
    np.testing.assert_array_equal(Emulator(compiled.quantized_graph).run(images), expected)


def test_the_border_has_factors_of_its_own():
    """3x3 over 8x8 with SAME padding: corners divide by 4, edges by 6, the rest by 9."""
    b = Builder((8, 8, 16), 1)
    attrs = {"kernel": (3, 3), "stride": (1, 1), "pad": (1, 1, 1, 1)}
    pooled = b.layer("avg_pool_inside", ["input"], (8, 8, 16), **attrs)
    quantized = b.quantized("border", b.dense(b.flatten(pooled), 3))
    compiled = compile_native(quantized, get_target("DPUCZDX8G_ISA1_B4096"))
    assert compiled.graph.op(pooled).attrs["count_include_pad"] is False
    steps = next(iter(IsaRunner(compiled.graph).simulators.values())).steps
    inits = [step.instruction for step in steps if step.instruction.name == "ALUINIT"]
    factors = {(init["multi_factor"], init["shift_cut"] - 8) for init in inits}
    assert factors == {(1, 2), (85, 9), (7, 6)}
    image = np.full((1, 8, 8, 16), 96, np.int8)
    value = Emulator(compiled.graph).run(image, dump=True)[pooled]
    assert np.unique(value[0, 0, 0]) == 96  # TensorFlow's mean of a constant
    assert np.unique(value[0, 0, 3]) == np.floor(96 * 6 * 85 / 512 + 0.5)
    assert np.unique(value[0, 3, 3]) == np.floor(96 * 9 * 7 / 64 + 0.5)
