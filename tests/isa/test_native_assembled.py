"""Maps put together on the way into the banks: equal to the emulator map by map, and what they save."""

import numpy as np
import pytest
from integer_reference import JobBuilder
from quantized_builder import Builder
from random_jobs import FINGERPRINTS, assert_equal
from test_native_resizing import SIZES, batch, resized
from test_native_scheduling import moved

from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.isa.machine import machine_for
from dpuflow.dpuczdx8g.isa.runner import IsaRunner
from dpuflow.dpuczdx8g.native.compile import generate_code
from dpuflow.dpuczdx8g.native.lowering import lower_subgraph
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.emulator import Emulator

B4096 = FINGERPRINTS["B4096"]


def joined(b, names):
    """A concat of layers, all brought to one fix_point."""
    height, width, _ = b.shape(names[0])
    x = b.layer("concat", names, (height, width, sum(b.shape(name)[2] for name in names)), axis=3)
    b.fix_points.update({name: b.fix_points[x] for name in names})
    return x


def pyramid(size, seed):
    """A small map upsampled and joined with finer ones, in whole channel groups or not."""
    random = np.random.default_rng(seed)
    per_group = machine_for(FINGERPRINTS[size]).channels
    factor = [(2, 2), (3, 1), (1, 2), (2, 4)][int(random.integers(4))]
    height, width = (int(n) for n in random.integers(3, 9, 2))
    b = Builder((height * factor[1], width * factor[0], 3), seed)
    fine = b.conv("input", per_group * int(random.integers(1, 3)))
    small = b.layer("downsample", [fine], (height, width, b.shape(fine)[2]), factor=factor)
    small = b.conv(small, per_group * int(random.integers(1, 4)))
    up = resized(b, small, "upsample", factor)
    last = b.conv("input", int(random.integers(1, 40)))
    parts = [up, fine, last] if random.random() < 0.5 else [fine, up, last]
    if random.random() < 0.3:
        parts = [last, up, fine]  # mostly not in whole groups: joined in DDR
    x = joined(b, parts)
    y = b.conv(x, 9)
    if random.random() < 0.5:
        y = joined(b, [b.conv(fine, 5), y])  # `fine` is read elsewhere, too
    z = b.conv(up, 9) if random.random() < 0.5 else b.depthwise(x)
    ends = [b.pool(y, "max_pool", b.shape(y)[1::-1]), b.pool(z, "max_pool", b.shape(z)[1::-1])]
    return b.quantized(f"pyramid{seed}", b.dense(b.flatten(joined(b, ends)), 6))


@pytest.mark.parametrize(("size", "seed"), [(SIZES[seed % 8], seed) for seed in range(16)])
def test_random_pyramids_on_every_size(size, seed):
    compiled = compile_native(
        pyramid(size, seed), get_target(f"DPUCZDX8G_ISA1_{size}")
    )  # verified map by map
    images = batch(compiled.graph)
    expected = Emulator(compiled.graph).run(images)
    np.testing.assert_array_equal(IsaRunner(compiled.graph).run(images), expected)


def test_what_is_upsampled_and_joined_has_no_place_in_ddr():
    """YOLO's way up: the small map is saved once, and loaded twice in each direction beside the fine one."""
    b = Builder((16, 16, 3))
    fine = b.conv("input", 32)
    small = b.conv(b.pool(fine), 16)
    up = resized(b, small, "upsample", (2, 2))
    concat = joined(b, [up, fine])
    quantized = b.quantized("up", b.dense(b.flatten(b.pool(b.conv(concat, 9), kernel=(4, 4))), 6))
    graph = compile_native(quantized, get_target("DPUCZDX8G_ISA1_B4096")).graph
    found = lower_subgraph(graph, graph.subgraphs("DPU")[0])
    generate_code(found.job, machine_for(B4096))
    maps = found.maps
    assert [(m.feature_map, m.channel, m.times) for m in maps[concat].parts] == [
        (maps[small], 0, (2, 2)),
        (maps[fine], 16, (1, 1)),
    ]
    assert [maps[name].spilled for name in (small, fine, up, concat)] == [True, True, False, False]
    simulators = IsaRunner(graph).simulators.values()
    (saved, loaded) = (sum(moved(s, name)["REG_1"] for s in simulators) for name in ("SAVE", "LOAD"))
    assert (saved, loaded) == (8 * 8 * 16 + 16 * 16 * 32, 16 * 16 * (16 + 32))


def test_a_map_of_a_join_in_ddr_is_copied_there_once():
    """The other join begins in whole channel groups: it is read from where its inputs lie."""
    builder = JobBuilder((20, 20, 16), 7)
    a, b = builder.conv(builder.input, 32), builder.conv(builder.input, 20)
    first = builder.concat([a, b])
    second = builder.concat([builder.conv(first, 9), a])
    simulator = assert_equal(builder, builder.job(builder.conv(second, 8)), B4096)
    pixels = 20 * 20
    assert moved(simulator, "SAVE") == {"REG_1": pixels * (32 + 20 + 9 + 32), "REG_3": pixels * 8}
    assert [(part.feature_map, part.channel) for part in first.parts] == [(a, 0), (b, 32)]


@pytest.mark.parametrize(("channels", "apart"), [((16, 16), True), ((32, 32), False), ((64, 32), False)])
def test_joins_of_few_channels_are_read_from_their_inputs(channels, apart):
    """In DDR runs of 16 bytes take as long as such of 32."""
    builder = JobBuilder((40, 40, 16), 1)
    x = builder.concat([builder.conv(builder.input, count) for count in channels])
    assert_equal(builder, builder.job(builder.conv(x, 8)), B4096, images=1)
    assert bool(x.parts) == apart
