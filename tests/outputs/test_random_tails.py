"""Random layers of the CPU behind (and between) the DPU's: every executor gives the same bits."""

import json

import numpy as np
import pytest
from output_networks import SCALING, Maker, images

from dpuflow.base.pixels import scale_pixels
from dpuflow.board.parts import describe_parts
from dpuflow.compiler.quantized_graph import quantized_graph
from dpuflow.compiler.quantized_reading import quantized_network
from dpuflow.compiler.reference import lower
from dpuflow.device.targets import get_target
from dpuflow.emulator import Emulator
from dpuflow.network import Network
from dpuflow.network.check import check, check_network
from dpuflow.quantize import calibration, engine
from dpuflow.quantize.reference import quantize
from dpuflow.xir import Graph
from tests.board.application_modules import module

SEEDS = range(20)
PLAIN = {"fast_finetune": False, "equalization": False, "position_search": {"criterion": None}}


class Tail(Maker):
    """Grows layers of the CPU at random, each with its true shape."""

    def grow(self, source, number):
        shape, rng, name = self.shape(source), self.random, f"cpu{number}"
        kind = str(rng.choice(list(KINDS)))
        return KINDS[kind](self, name, source, shape, rng)

    def reshape(self, name, source, shape, rng):
        count = int(np.prod(shape))
        first = int(rng.choice([n for n in range(1, count + 1) if count % n == 0]))
        target = (first, count // first)
        return self.add(name, "float_reshape", [source], target, target=target)

    def transpose(self, name, source, shape, rng):
        order = (0, *(int(n) + 1 for n in rng.permutation(len(shape))))
        return self.add(name, "transpose", [source], [shape[a - 1] for a in order[1:]], order=order)

    def cut(self, name, source, shape, rng):
        begin = tuple(int(rng.integers(0, n)) for n in shape)
        end = tuple(int(rng.integers(b + 1, n + 1)) for b, n in zip(begin, shape, strict=True))
        strides = tuple(int(n) for n in rng.integers(1, 3, len(shape)))
        new = [len(range(b, e, s)) for b, e, s in zip(begin, end, strides, strict=True)]
        return self.add(name, "float_slice", [source], new, begin=begin, end=end, strides=strides)

    def join(self, name, source, shape, rng):
        axis = int(rng.integers(1, len(shape) + 1))
        size = (*shape[: axis - 1], 2, *shape[axis:])
        inputs = [source, self.constant(f"{name}/more", rng.normal(size=size))][:: int(rng.choice([-1, 1]))]
        new = (*shape[: axis - 1], shape[axis - 1] + 2, *shape[axis:])
        return self.add(name, "float_concat", inputs, new, axis=axis)

    def arithmetic(self, name, source, shape, rng):
        size = tuple(int(rng.choice([1, n])) for n in shape)
        other = self.constant(f"{name}/by", rng.uniform(0.5, 2, size) * rng.choice([-1, 1]))
        op = str(rng.choice(["float_add", "float_subtract", "float_multiply", "float_divide"]))
        inputs = [source, other] if op == "float_divide" or rng.random() < 0.5 else [other, source]
        return self.add(name, op, inputs, shape)

    def matmul(self, name, source, shape, rng):
        columns = int(rng.integers(1, 5))
        matrix = self.constant(f"{name}/matrix", rng.normal(size=(shape[-1], columns)) / np.sqrt(shape[-1]))
        return self.add(name, "float_matmul", [source, matrix], (*shape[:-1], columns))

    def sigmoid(self, name, source, shape, rng):
        return self.add(name, "float_sigmoid", [source], shape)

    def softmax(self, name, source, shape, rng):
        return self.add(name, "softmax", [source], shape)

    def tanh(self, name, source, shape, rng):
        return self.add(name, "tanh", [source], shape)


KINDS = {
    name: getattr(Tail, name)
    for name in (
        "sigmoid", "softmax", "tanh", "reshape", "transpose", "cut", "join", "arithmetic", "matmul",
    )
}  # fmt: skip


def network(seed):
    """One or two heads, each with a tail of up to six layers, some of which are outputs as well."""
    t = Tail(seed)
    x = t.relu(t.conv("trunk", t.input("image", (6, 5, 3)), 6))
    ends = {}
    for head in range(int(t.random.integers(1, 3))):
        last = t.conv(f"head{head}", x, int(t.random.integers(1, 5)), kernel=1)
        if t.random.random() < 0.3:
            ends[f"raw{head}"] = last
        for number in range(int(t.random.integers(1, 7))):
            last = t.grow(last, f"{head}_{number}")
        ends[f"end{head}"] = last
    return Network("random", t.layers, ends)


@pytest.mark.parametrize("seed", SEEDS)
def test_all_executors_agree(seed):
    floats = network(seed)
    check_network(floats)
    pixels = images(floats, 4)["image"]
    quantized, _ = quantize(floats, pixels, PLAIN, SCALING)
    check(quantized)
    grid = calibration.to_grid(scale_pixels(pixels, SCALING), quantized.fix_points["image"])
    values = engine.run_integer(quantized, grid)
    expected = [
        values[layer.name] * np.float32(2.0 ** -quantized.fix_points.get(layer.name, 0))
        for layer in quantized.network.outputs.values()
    ]
    batch = grid.astype(np.int8)
    compiled = lower(quantized, get_target("kv260"))
    for graph in (compiled, quantized_graph(quantized)):
        with Emulator(graph, threads=1) as emulator:
            found = emulator.run(batch)
            ends = [op.name for op in emulator.outputs]
            found = [found[name] for name in ends] if len(ends) > 1 else [found]
        for got, wanted in zip(found, expected, strict=True):
            np.testing.assert_array_equal(got, wanted.reshape(got.shape))
    assert all(np.isfinite(wanted).all() for wanted in expected)
    on_the_board(Emulator(compiled, threads=1), batch, expected)
    read_again(quantized, grid)


def read_again(quantized, grid):
    """The uncompiled graph as an entry: the same layers, the same bits."""
    written = quantized_graph(quantized).to_bytes()
    again = quantized_network("q.xmodel", Graph.from_bytes(written), quantized.network.name, None)
    ours = {layer.name: layer for layer in quantized.network.layers}
    found = {layer.name: layer for layer in again.network.layers}
    assert {name: (a.op, a.inputs, a.shape, a.attrs) for name, a in found.items()} == {
        name: (a.op, a.inputs, a.shape, a.attrs) for name, a in ours.items()
    }
    assert again.fix_points == quantized.fix_points
    assert list(again.network.outputs) == list(quantized.network.outputs) or not again.network.ends
    values, wanted = engine.run_integer(again, grid), engine.run_integer(quantized, grid)
    for name in again.network.outputs.values():
        np.testing.assert_array_equal(values[name.name], wanted[name.name])


def on_the_board(emulator, batch, expected):
    """The CPU's part as the board's application computes it, from what the DPU gives."""
    cpu_ops = module("cpu_ops")
    ends = [op.name for op in emulator.outputs]
    parts, arrays = describe_parts(emulator, ends)
    tensors = emulator.run(batch, dump=True)
    (part,) = [part for part in parts if part["device"] == "CPU"]
    part = json.loads(json.dumps(part))
    values = {name: arrays[key] for name, key in part["constants"].items()}
    for op in part["ops"]:
        inputs = [values[name] if name in values else tensors[name] for name in op["inputs"]]
        values[op["name"]] = cpu_ops.prepare(op, arrays)(inputs)
    for name, wanted in zip(ends, expected, strict=True):
        np.testing.assert_array_equal(values[name], wanted.reshape(values[name].shape))


def test_the_networks_hold_every_layer_of_the_cpu():
    found = {layer.op for seed in SEEDS for layer in network(seed).layers}
    assert found >= {
        *("float_sigmoid", "softmax", "tanh", "float_reshape", "transpose", "float_slice", "float_concat"),
        *("float_matmul", "constant"),
    }
