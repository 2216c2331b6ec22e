"""Random jobs for the code generator, and how to run one."""

import numpy as np
from integer_reference import JobBuilder, run_job

from dpuflow.dpuczdx8g.isa.code import encode
from dpuflow.dpuczdx8g.isa.machine import machine_for
from dpuflow.dpuczdx8g.isa.program import DpuProgram, Port
from dpuflow.dpuczdx8g.isa.simulator import Simulator
from dpuflow.dpuczdx8g.native.compile import generate_code

FINGERPRINTS = {
    "B512": 0x101000056010200,
    "B800": 0x101000056010201,
    "B1024": 0x101000056010402,
    "B1152": 0x101000056010203,
    "B1600": 0x101000056010404,
    "B2304": 0x101000056010405,
    "B3136": 0x101000056010406,
    "B4096": 0x101000056010407,
}


def program(job, fingerprint):
    """Compile a Job: (DpuProgram, instructions)."""
    instructions = generate_code(job, machine_for(fingerprint))
    inputs, outputs = (
        tuple(Port(m.name, m.name, m.region, m.address, m.shape, None) for m in maps)
        for maps in (job.inputs, job.outputs)
    )
    code = encode(instructions)
    return (
        DpuProgram(job.name, fingerprint, code, job.parameters, job.region_sizes, inputs, outputs),
        instructions,
    )


def assert_equal(builder, job, fingerprint, images=2):
    """The generated code passes all checks and gives what the integer reference gives."""
    compiled, _ = program(job, fingerprint)
    simulator = Simulator(compiled)
    batch = builder.images(images)
    expected = run_job(job, batch)
    for order in (None, 0):
        for output, wanted in zip(simulator.run([batch], interleave=order), expected, strict=True):
            np.testing.assert_array_equal(output, wanted)
    return simulator


def chain(channels, dense, seed=0, depthwise=False, shape=(28, 28, 1)):
    """Conv 3x3 same, ReLU, (1x1 depthwise), 2x2 max-pool per entry of `channels`, then dense layers."""
    builder = JobBuilder(shape, seed)
    x = builder.input
    for count in channels:
        x = builder.conv(x, count)
        if depthwise:
            x = builder.depthwise(x)
        x = builder.pool(x)
    for units in dense[:-1]:
        x = builder.dense(x, units, "RELU")
    x = builder.dense(x, dense[-1])
    return builder, builder.job(x)


def _geometry(random, source, largest):
    """Random kernel, stride and padding that fit `source`, or None."""
    height, width, _ = source.shape
    kernel = tuple(int(random.integers(1, min(largest, size + 2) + 1)) for size in (height, width))
    pads = [int(random.integers(0, k)) for k in (kernel[0], kernel[0], kernel[1], kernel[1])]
    if height + pads[0] + pads[1] < kernel[0] or width + pads[2] + pads[3] < kernel[1]:
        return None
    stride = (int(random.choice([1, 1, 2, 3])), int(random.choice([1, 1, 2, 3])))
    return {"kernel": kernel, "stride": stride, "pad": tuple(pads)}


def _random_layer(builder, random, x, branches):
    """Append one random layer behind `x`; returns its output, or `x` when nothing fits."""
    kinds = ["conv", "conv", "depthwise", "max_pool", "avg_pool", "global", "add", "concat"]
    kind = random.choice([*kinds, "hard_swish", "squeeze", "multiply"])
    geometry = _geometry(random, x, 7 if kind == "conv" else 4)
    same_size = [m for m in branches if m.shape[:2] == x.shape[:2]]
    if kind == "global" and x.shape[0] <= 14:
        return builder.pool(x, "avg_pool", x.shape[:2], (1, 1))
    if kind == "hard_swish":
        gate = builder.hard_sigmoid(x, int(random.integers(0, 12)))
        return builder.multiply([gate, x] if random.random() < 0.5 else [x, gate], int(random.integers(5, 9)))
    if kind == "squeeze" and max(x.shape[:2]) <= 14:
        return builder.squeeze_and_excitation(x, int(random.integers(1, 30)))
    if kind == "multiply":  # by another map, or by one factor per channel that is anywhere on the way
        maps = [m for m in branches if m.shape == x.shape] + [x]
        factors = [m for m in branches if m.shape == (1, 1, x.shape[2])]
        if factors and random.random() < 0.7:
            return builder.scale(x, factors[random.integers(len(factors))], int(random.integers(6, 12)))
        return builder.multiply([x, maps[random.integers(len(maps))]], int(random.integers(5, 9)))
    if kind == "add":
        other = [m for m in same_size if m.shape == x.shape] or [x]
        other = other[random.integers(len(other))]
        sources = [x, other] if random.random() < 0.7 else [other, x, other]
        shift_read = tuple(int(random.integers(0, 3)) for _ in sources)
        return builder.add(
            sources, str(random.choice(["NONE", "RELU"])), shift_read, int(random.integers(-2, 4))
        )
    if kind == "concat" and same_size:
        other = same_size[random.integers(len(same_size))]
        return builder.concat([x, other] if random.random() < 0.5 else [other, x])
    if geometry is None:
        return x
    if kind == "depthwise":
        return builder.depthwise(x, **geometry, activation=str(random.choice(["NONE", "RELU", "RELU6"])))
    if kind in ("max_pool", "avg_pool"):
        return builder.pool(x, kind, **geometry, shift=int(random.integers(-2, 3)))
    activation = str(random.choice(["NONE", "RELU", "RELU6", "LEAKYRELU"]))
    return builder.conv(x, int(random.choice([1, 7, 16, 25, 40, 130])), **geometry, activation=activation)


def random_job(seed):
    """A random small network, some of it through DDR, sometimes with two outputs."""
    random = np.random.default_rng(seed)
    shape = (
        int(random.integers(1, 45)),
        int(random.integers(1, 45)),
        int(random.choice([1, 3, 16, 20, 33, 100])),
    )
    builder = JobBuilder(shape, seed)
    x, branches = builder.input, [builder.input]
    for _ in range(int(random.integers(1, 7))):
        x = _random_layer(builder, random, x, branches)
        branches.append(x)
    if x is builder.input:
        x = builder.conv(x, 5, (1, 1), pad=(0, 0, 0, 0))
    outputs = [x]
    first = builder.operations[0].output
    if random.random() < 0.2 and first is not x:
        outputs.append(first)
    return builder, builder.job(*outputs)
