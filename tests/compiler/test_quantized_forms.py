"""Quantized graphs as the vendor's PyTorch quantizer writes them, with what our own writer never does."""

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.compiler.quantized_reading import quantized_network
from dpuflow.compiler.reference import lower
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.isa.runner import IsaRunner
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.emulator import Emulator
from dpuflow.quantize.engine import run_integer
from dpuflow.xir import Graph

SCALING = {"subtract": 0, "divide": 255}
WINDOW = {"dilation": [1, 1], "stride": [1, 1], "pad": [0, 0, 0, 0], "pad_mode": "FLOOR"}


class Written:
    """A graph with a fix op behind the input, parameters and, if asked for, activations."""

    def __init__(self, shape, seed):
        self.rng, self.graph = np.random.default_rng(seed), Graph("written")
        self.graph.add_op("image", "data", {}, {"shape": [1, *shape], "data_type": "FLOAT32"})
        self.last = self.fix("image", 5)

    def fix(self, name, point):
        attrs = {"fix_point": point, "bit_width": 8, "if_signed": True, "round_mode": "DPU_ROUND"}
        self.last = self.graph.add_op(f"{name}_fix", "fix", {"input": name}, attrs).name
        return self.last

    def const(self, name, array):
        array = np.asarray(array, "<f4")
        attrs = {"shape": list(array.shape), "data_type": "FLOAT32", "data": array.tobytes()}
        return self.graph.add_op(name, "const", {}, attrs).name

    def parameter(self, name, shape, point, most=60):
        values = self.rng.integers(-most, most + 1, shape)
        last = self.last
        found = self.fix(self.const(name, values * 2.0**-point), point)
        self.last = last
        return found

    def op(self, name, type_, inputs=None, point=None, more=None, **attrs):
        given = {"input": inputs or [self.last], **(more or {})}
        self.last = self.graph.add_op(name, type_, given, attrs).name
        return self.last if point is None else self.fix(name, point)

    def shape(self, name=None):
        return self.graph.op(name or self.last).tensor.shape

    def conv(self, name, outputs, kernel, source=None, group=1, point=3, **attrs):
        source = source or self.last
        more = {
            "weights": [
                self.parameter(f"{name}_w", (outputs, kernel, kernel, self.shape(source)[3] // group), 8)
            ],
            "bias": [self.parameter(f"{name}_b", (outputs,), 6)],
        }
        settings = {**WINDOW, "kernel": [kernel, kernel], "group": group, **attrs}
        self.op(name, "conv2d", [source], more=more, **settings)
        return self.op(f"{name}_relu", "relu", point=point)

    def part(self, name, source, axis, begin, end, step=1, point=None):
        bounds = {"begin": [0] * 4, "end": [1, 2**31 - 1, 2**31 - 1, 2**31 - 1], "strides": [1] * 4}
        for key, value in zip(bounds, (begin, end, step), strict=True):
            bounds[key][axis] = value
        return self.op(name, "strided_slice", [source], point, **bounds)


def network(seed):
    """Groups, padding, parts of maps, resizing to a size, a lone scale, a mean with its factor."""
    w = Written((9, 8, 4), seed)
    side = int(w.rng.integers(1, 3))
    w.conv("grouped", 8, 3, group=2, pad=[1, 1, 1, 1], point=4)
    w.op("zeros", "pad", paddings=[0, 0, 1, 0, 2, 1, 0, 0], mode="CONSTANT", constant_values=[0.0])
    w.fix("zeros", 4)
    stem = w.conv("stem", 12, 3, point=4)
    left = w.part("left", stem, 3, 0, 5)
    right = w.part("right", stem, 3, 5, 12, point=3)
    picked = w.part("picked", stem, 3, 1, 12, 3)
    w.conv("half", 7, 1, left, point=3)
    w.op("joined", "concat", [w.last, right], point=3, axis=3)
    w.op("rows", "strided_slice", begin=[0, 1, 0, 0], end=[1, 7, 9, 14], strides=[1, 1, 1, 1])
    w.op("thinned", "strided_slice", begin=[0, 0, 0, 0], end=[1, 6, 9, 14], strides=[1, 2, 3, 1])
    small = w.last
    height, width = w.shape(small)[1:3]
    size = [w.const(f"size{k}", [n]) for k, n in enumerate((height * 2, width * side))]
    stacked = w.op("size", "stack", size, axis=0)
    grid = {"align_corners": False, "half_pixel_centers": False}
    w.op("larger", "resize", [small], 3, {"size": [stacked]}, mode="NEAREST", **grid)
    channels = w.shape()[3]
    more = {"scale": [w.parameter("gamma", (channels,), 6)], "bias": [w.parameter("beta", (channels,), 5)]}
    w.op("lone", "scale", more=more, point=3)
    area = int(np.prod(w.shape()[1:3]))
    w.op("mean", "reduction_mean", axis=[1, 2], keep_dims=False)
    if area & (area - 1):
        factors = {6: 43 / 256, 12: 85 / 1024, 18: 57 / 1024, 24: 85 / 2048, 36: 7 / 256}
        w.op("averaged", "mul", [w.last, w.const("factor", [area * factors[area]])])
    w.fix(w.last, 4)
    inputs = [w.last, w.parameter("fc_w", (5, channels), 7)]
    more = {"bias": [w.parameter("fc_b", (5,), 6)]}
    w.op("fc", "matmul", inputs, 5, more, transpose_a=False, transpose_b=True)
    w.graph.attrs.set("return_ops", [w.last, w.conv("second", 16, 1, picked, point=5)], "string_vec")
    return w.graph


@pytest.mark.parametrize("seed", range(4))
def test_what_is_read_gives_the_integers_of_the_graph(seed):
    graph = network(seed)
    read = quantized_network("q.xmodel", graph, "net", SCALING)
    ends = list(graph.attrs["return_ops"])
    x = np.random.default_rng(seed).integers(-128, 128, (3, 9, 8, 4), dtype=np.int8)
    wanted = Emulator(graph).run(x)
    layers = [layer.name for layer in read.network.outputs.values()]
    integers = run_integer(read, x, keep=layers)
    compiled = Emulator(lower(read, get_target("DPUCZDX8G_ISA1_B4096"), on_cpu=())).run(x)
    for end, layer, found in zip(ends, layers, compiled.values(), strict=True):
        exact = np.ldexp(wanted[end], read.fix_points[layer])
        assert len(np.unique(exact)) > 4
        np.testing.assert_array_equal(integers[layer].reshape(exact.shape), exact, err_msg=end)
        found = np.ldexp(found, read.fix_points[layer]) if found.dtype != np.int8 else found
        np.testing.assert_array_equal(np.reshape(found, exact.shape), exact, err_msg=end)


def other_padding(w):
    w.op("zeros", "pad", paddings=[0, 0, 1, 1, 1, 1, 0, 0], mode="CONSTANT", constant_values=[0.5])
    w.conv("stem", 4, 3)


def padded_pool(w):
    w.op("zeros", "pad", paddings=[0, 0, 1, 1, 1, 1, 0, 0], mode="CONSTANT")
    w.op("pool", "maxpool2d", point=5, kernel=[2, 2], stride=[2, 2], pad_mode="FLOOR")


def other_factor(w):
    w.op("mean", "reduction_mean", axis=[1, 2], keep_dims=True)
    w.op("averaged", "mul", [w.last, w.const("factor", [0.9])], point=5)


def uneven(w):
    w.op("size", "stack", [w.const("h", [20]), w.const("w", [17])], axis=0)
    grid = {"align_corners": False, "half_pixel_centers": False, "mode": "NEAREST"}
    w.op("larger", "resize", ["image_fix"], 5, {"size": ["size"]}, **grid)


REFUSED = {
    other_padding: r"op 'zeros' \(pad\): pads with something else than zeros",
    padded_pool: r"op 'pool' \(maxpool2d\): reads 'zeros', a padded map",
    other_factor: r"op 'averaged' \(mul\): its factor is 0\.9, the DPU's",
    uneven: r"op 'larger' \(resize\): resizes in a way that no DPU does",
}


@pytest.mark.parametrize("change", REFUSED)
def test_what_has_no_layer_is_refused_by_its_op(change):
    w = Written((9, 8, 4), 1)
    change(w)
    with pytest.raises(UserError, match=REFUSED[change]):
        quantized_network("q.xmodel", w.graph, "net", SCALING)


def leaky(w, name, outputs, kernel, source=None, stride=1, point=4):
    """A convolution with the DPU's leaky ReLU; point: None leaves it unrounded."""
    source = source or w.last
    more = {
        "weights": [w.parameter(f"{name}_w", (outputs, kernel, kernel, w.shape(source)[3]), 8)],
        "bias": [w.parameter(f"{name}_b", (outputs,), 6)],
    }
    window = {"kernel": [kernel] * 2, "stride": [stride] * 2, "pad": [kernel // 2] * 4}
    w.op(name, "conv2d", [source], more=more, **{**WINDOW, **window}, group=1)
    return w.op(f"{name}_act", "leaky-relu", point=point, alpha=26 / 256)


def test_a_detector_is_read_down_to_machine_code():
    """As YOLOv8 is written: halves of a map, pools in a row, concats over several grids, some unrounded."""
    w = Written((16, 16, 3), 7)
    leaky(w, "stem", 16, 3, stride=2)
    both = leaky(w, "cv1", 16, 1)
    first, second = w.part("first", both, 3, 0, 8), w.part("second", both, 3, 8, 16)
    leaky(w, "m1", 8, 3, second)
    inner = leaky(w, "m2", 8, 3)
    w.op("short", "add", [second, inner], 3)
    w.op("cat", "concat", [first, second, w.last], 4, axis=3)
    wide = leaky(w, "cv2", 24, 1)
    leaky(w, "down", 24, 3, stride=2)
    pooled = [leaky(w, "sp1", 12, 1)]
    for k in range(3):
        window = {"kernel": [5, 5], "stride": [1, 1], "pad": [2] * 4, "pad_mode": "FLOOR"}
        pooled.append(w.op(f"p{k}", "maxpool2d", **window))
    w.op("spcat", "concat", pooled, 4, axis=3)
    leaky(w, "sp2", 24, 1)
    grid = {"align_corners": False, "half_pixel_centers": False, "mode": "NEAREST"}
    up = w.op("up", "resize", scale=[2.0, 2.0], **grid)
    late = leaky(w, "late", 20, 1, wide, point=None)
    w.op("neck", "concat", [up, late], 3, axis=3)
    leaky(w, "head", 18, 1, point=5)
    read = quantized_network("q.xmodel", w.graph, "net", SCALING)
    copies = [layer.name for layer in read.network.layers if layer.op == "depthwise_conv"]
    assert copies == ["cat/short", "up/sp2"]
    x = np.random.default_rng(0).integers(-128, 128, (2, 16, 16, 3), dtype=np.int8)
    (output,) = read.network.outputs.values()
    exact = np.ldexp(Emulator(w.graph).run(x), read.fix_points[output.name])
    assert len(np.unique(exact)) > 30
    np.testing.assert_array_equal(run_integer(read, x)[output.name], exact)
    compiled = compile_native(read, get_target("DPUCZDX8G_ISA1_B4096"))
    np.testing.assert_array_equal(IsaRunner(compiled.graph).logits(x).reshape(exact.shape), exact)


def tail(w, last="add"):
    """A head as PyTorch writes it: channels first, constants without the batch, a matrix transposed."""
    w.conv("head", 6, 1, point=5)
    w.op("first", "transpose", order=[0, 3, 1, 2])
    w.op("rows", "flatten", start_axis=2, end_axis=3)
    w.op("gates", "sigmoid")
    w.op("twice", "mul", [w.last, w.const("two", [2.0])])
    w.op("less", "sub", [w.last, w.const("shifts", np.arange(72) / 64)])
    inputs = [w.last, w.const("matrix", w.rng.normal(size=(3, 72)))]
    w.op("boxes", "matmul", inputs, transpose_a=False, transpose_b=True)
    w.op("scores", "softmax", axis=-1)
    w.op("end", last, [w.last, w.last] if last == "add" else None)


def test_what_is_computed_behind_the_last_rounding_runs_on_the_cpu():
    w = Written((9, 8, 4), 3)
    tail(w)
    read = quantized_network("q.xmodel", w.graph, "net", SCALING)
    x = np.random.default_rng(3).integers(-128, 128, (3, 9, 8, 4), dtype=np.int8)
    wanted = Emulator(w.graph).run(x)
    assert wanted.shape == (3, 6, 3) and len(np.unique(wanted)) > 40
    np.testing.assert_array_equal(run_integer(read, x)["end"], wanted)
    compiled = lower(read, get_target("DPUCZDX8G_ISA1_B4096"))
    np.testing.assert_array_equal(Emulator(compiled).run(x), wanted)


def test_an_op_that_no_layer_of_the_cpu_is_is_refused():
    w = Written((9, 8, 4), 3)
    tail(w, "neg")
    with pytest.raises(UserError, match=r"op 'end' \(neg\): is no layer of the CPU behind the last rounding"):
        quantized_network("q.xmodel", w.graph, "net", SCALING)
