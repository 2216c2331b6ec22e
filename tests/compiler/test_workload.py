"""Workload figures against the vendor's compiler."""

from collections import Counter
from dataclasses import replace

import pytest

from dpuflow.compiler import workload
from dpuflow.device.targets import get_target, load_targets
from dpuflow.network import Layer, Network
from dpuflow.ops import work
from dpuflow.xir import Graph

B4096 = get_target("DPUCZDX8G_ISA1_B4096")
B1600 = get_target("DPUCZDX8G_ISA1_B1600")


def conv(name, source, shape, kernel, pad=(0, 0, 0, 0), stride=(1, 1), op="conv"):
    attrs = {"kernel": kernel, "stride": stride, "dilation": (1, 1), "pad": pad, "activation": "NONE"}
    return Layer(name, op, [source], shape, attrs)


def pool(name, source, shape, kernel, op="max_pool"):
    return Layer(name, op, [source], shape, {"kernel": kernel, "stride": kernel, "pad": (0, 0, 0, 0)})


@pytest.fixture
def vendor_network():
    """The network of the vendor-compiled file: layers and sizes as in the table of
    docs/reference/targets.md."""
    return Network(
        "mnist",
        [
            Layer("in", "input", [], (28, 28, 1)),
            conv("c0", "in", (22, 22, 32), (7, 7)),
            conv("c1", "c0", (16, 16, 32), (7, 7)),
            pool("p1", "c1", (8, 8, 32), (2, 2)),
            conv("c2", "p1", (4, 4, 64), (5, 5)),
            pool("p2", "c2", (2, 2, 64), (2, 2)),
            Layer("f", "flatten", ["p2"], (256,)),
            Layer("d", "dense", ["f"], (10,), {"activation": "NONE"}),
            Layer("s", "softmax", ["d"], (10,)),
        ],
    )


def test_the_published_table(vendor_network):
    found = {
        layer.name: workload.layer_workload(vendor_network, layer, B4096) for layer in vendor_network.layers
    }
    assert found == {
        "in": (0, 0),
        "c0": (1_533_312, 3_801_600),
        "c1": (25_698_304, 25_698_304),
        "p1": (8_192, 8_192),
        "c2": (1_639_424, 3_278_848),
        "p2": (1_024, 2_048),
        "f": (0, 0),
        "d": (5_130, 65_664),
        "s": (0, 0),
    }
    assert sum(pair[0] for pair in found.values()) == 28_885_386
    assert sum(pair[1] for pair in found.values()) == 32_854_656


def figures(graph, op, target):
    """(workload, workload_on_arch) by our formulas of an op of a compiled file."""
    shape, kernel = op.tensor.shape[1:], op.attrs.get("kernel")
    if op.type == "conv2d-fix":
        channels = graph.op(op.inputs["weights"][0]).tensor.shape[3]
        augmented = "channel_augmentation" in op.attrs
        return (
            work.conv_workload(shape, kernel, channels),
            workload.conv_workload_on_arch(shape, kernel, channels, target, augmented),
        )
    if op.type == "depthwise-conv2d-fix":
        return (
            work.depthwise_workload(shape, kernel),
            workload.depthwise_workload_on_arch(shape, kernel, target),
        )
    if op.type == "pool-fix":
        average = op.attrs["type"] == "AVG"
        return (
            work.pool_workload(shape, kernel, average),
            workload.pool_workload_on_arch(shape, kernel, target, average),
        )
    assert op.type == "eltwise-fix", op.type
    count = len(op.input_names)
    return (
        work.eltwise_workload(shape, count),
        workload.eltwise_workload_on_arch(shape, target, count),
    )


def compiled_files(shared):
    """Graph of every vendor-compiled file of this instruction set, with the target of each subgraph."""
    targets = [target for name, target in load_targets().items() if name == target.dpu]
    paths = [*shared("golden/vendor").glob("*.xmodel"), *shared("golden/wild").glob("*.xmodel")]
    for path in sorted(paths):
        graph = Graph.load(path)
        for subgraph in graph.subgraphs("DPU"):
            number = subgraph.attrs["dpu_fingerprint"]
            if number >> 48 == 0x101:
                target = next(t for t in targets if (t.fingerprint ^ number) & 0xF == 0)
                # the sizes of release 2.5 that were built with more ALU pixels
                yield graph, subgraph, replace(target, alu_pixel_parallel=number >> 8 & 0xF)


def test_every_workload_attribute_of_the_vendors_files(shared):
    """Compilers 2.5 to 3.5, five sizes: 290 ops and the sums of 25 subgraphs."""
    counted, subgraphs = Counter(), 0
    for graph, subgraph, target in compiled_files(shared):
        totals = {}
        for name in subgraph.op_names:
            op = graph.op(name)
            if "workload" in op.attrs:
                totals[name] = figures(graph, op, target)
                assert totals[name] == (op.attrs["workload"], op.attrs["workload_on_arch"]), name
                counted[op.type] += 1
        sums = tuple(map(sum, zip(*totals.values(), strict=True)))
        assert sums == (subgraph.attrs["workload"], subgraph.attrs["workload_on_arch"])
        subgraphs += 1
    assert subgraphs >= 25
    least = {"conv2d-fix": 195, "depthwise-conv2d-fix": 31, "pool-fix": 19, "eltwise-fix": 44}
    assert counted.keys() == least.keys() and all(counted[name] >= n for name, n in least.items()), counted


@pytest.mark.parametrize("release", ["3.0", "2.5"])
def test_the_root_counts_the_whole_file(shared, release):
    graph = Graph.load(shared(f"golden/vendor/zcu102_mnist_{release}.xmodel"))
    computed = [op for op in graph.ops if "workload" in op.attrs and op.type in ("conv2d-fix", "pool-fix")]
    for op in computed:
        if op.type == "conv2d-fix":
            source = graph.op(op.inputs["input"][0])
            kernel, stride, pad, dilation = (
                op.attrs[name] for name in ("kernel", "stride", "pad", "dilation")
            )
            channels = source.tensor.shape[3]
            fits = workload.augments_channels(kernel, stride, channels, pad, dilation, B4096)
            assert ("channel_augmentation" in op.attrs) == (fits and source.name == "input_1_upload_0")
    totals = [figures(graph, op, B4096) for op in computed]
    root = graph.root.attrs
    assert (root["workload"], root["workload_on_arch"]) == tuple(map(sum, zip(*totals, strict=True)))


def test_sizes_round_up_to_the_parallelism_of_the_target():
    # B1600: 8 pixels, 10 input and output channels, 4 ALU pixels
    assert workload.conv_workload_on_arch((5, 7, 11), (3, 3), 11, B1600) == 8 * 7 * 20 * (2 * 9 * 20 + 1)
    assert workload.pool_workload_on_arch((5, 7, 11), (3, 2), B1600) == 8 * 7 * 20 * 6
    assert work.depthwise_workload((5, 7, 11), (3, 3)) == 5 * 7 * 11 * 19
    assert workload.depthwise_workload_on_arch((5, 7, 11), (3, 3), B1600) == 8 * 7 * 20 * 19
    assert work.eltwise_workload((5, 7, 11)) == 5 * 7 * 11 * 2
    assert workload.eltwise_workload_on_arch((5, 7, 11), B1600, inputs=3) == 8 * 7 * 20 * 3


@pytest.mark.parametrize(
    ("kernel", "channels", "pad", "dilation", "expected"),
    [
        ((7, 7), 1, (0, 0, 0, 0), (1, 1), True),
        ((7, 7), 3, (0, 0, 3, 3), (1, 1), True),  # 21 of 32
        ((7, 7), 5, (0, 0, 0, 0), (1, 1), False),  # 35 > 32
        ((3, 3), 1, (1, 1, 1, 1), (1, 1), True),  # padded left and right
        ((3, 3), 1, (0, 0, 0, 0), (2, 1), False),
        ((1, 1), 3, (0, 0, 0, 0), (1, 1), False),  # nothing to gain
        ((2, 2), 16, (0, 0, 0, 0), (1, 1), False),
    ],
)
def test_when_channels_are_augmented(kernel, channels, pad, dilation, expected):
    assert workload.augments_channels(kernel, (1, 1), channels, pad, dilation, B4096) is expected


@pytest.mark.parametrize(("stride", "pad", "expected"), [(3, 1, True), (4, 0, True), (4, 1, False)])
def test_windows_apart_are_augmented_only_without_padding(stride, pad, expected):
    found = workload.augments_channels((3, 3), (stride, 1), 1, (pad, 0, 0, 0), (1, 1), B4096)
    assert found is expected


@pytest.mark.parametrize(
    ("size", "out_shape", "kernel", "on_arch"),
    [
        ("B4096", (28, 28, 6), (5, 5), 2_308_096),  # LeNet, one channel
        ("B4096", (112, 112, 32), (3, 3), 38_936_576),  # MobileNetV2
        ("B4096", (320, 320, 16), (6, 6), 316_211_200),  # YOLOv5n: 18 of 16 channels, two entries
    ],
)
def test_augmented_layers_of_vendor_files(size, out_shape, kernel, on_arch):
    target = get_target(f"DPUCZDX8G_ISA1_{size}")
    channels = 1 if kernel == (5, 5) else 3
    assert workload.conv_workload_on_arch(out_shape, kernel, channels, target, augmented=True) == on_arch


def test_only_the_layer_at_the_input_is_augmented(vendor_network):
    c0, c1 = vendor_network["c0"], vendor_network["c1"]
    assert workload.layer_is_augmented(vendor_network, c0, B4096)
    assert not workload.layer_is_augmented(vendor_network, c1, B4096)


def test_dense_behind_a_vector_is_a_one_by_one_convolution(vendor_network):
    network = vendor_network
    network.layers[-1] = Layer("d2", "dense", ["d"], (24,), {"activation": "NONE"})
    assert workload.dense_kernel(network, network["d"]) == ((2, 2), 64)
    assert workload.dense_kernel(network, network["d2"]) == ((1, 1), 10)
    assert workload.layer_workload(network, network["d2"], B4096) == (24 * 21, 8 * 32 * 33)


def test_depthwise_add_and_average_pool_of_a_network():
    network = Network(
        "n",
        [
            Layer("in", "input", [], (8, 8, 16)),
            conv("dw", "in", (8, 8, 16), (3, 3), (1, 1, 1, 1), op="depthwise_conv"),
            Layer("add", "add", ["in", "dw"], (8, 8, 16), {"activation": "NONE"}),
            pool("gap", "add", (1, 1, 16), (8, 8), "avg_pool"),
        ],
    )
    found = [workload.layer_workload(network, layer, B4096) for layer in network.layers[1:]]
    assert found == [(8 * 8 * 16 * 19,) * 2, (2048, 2048), (2 * 16 * 64, 2 * 4 * 16 * 64)]
