"""Workload figures of the compiler: operations of a layer, and what the array spends.

`workload` counts operations (a multiply and an add are two, the bias one);
`workload_on_arch` counts what the DPU's array is busy with, where sizes are rounded
up to the parallelism. Formulas: docs/reference/targets.md,
exact against every op of the vendor-compiled files (compilers 2.5 to 3.5; those up to 2.0,
for instruction set ISA0, leave out the bias).
"""

from collections.abc import Sequence
from math import ceil, prod

from dpuflow.device.targets import Target
from dpuflow.network import Layer, Network
from dpuflow.ops.convolution import Weighted
from dpuflow.ops.operator import Shape
from dpuflow.ops.transposed import Transposed
from dpuflow.ops.work import depthwise_workload, eltwise_workload, pool_workload

Pair = tuple[int, int]
"""(width, height)."""


def round_up(value: int, multiple: int) -> int:
    """The least multiple of `multiple` that is not below `value`."""
    return ceil(value / multiple) * multiple


def augments_channels(
    kernel: Pair, stride: Pair, in_channels: int, pad: Sequence[int], dilation: Pair, target: Target
) -> bool:
    """Whether a first-layer convolution folds kernel columns and channels together.

    Channel augmentation reads KW * IC bytes as one pixel's channels, so it must fit
    `target.channel_augmentation` and gain something. Padding beside the map is masked while
    loading, which works on windows that touch or overlap (docs/reference/instruction-set.md).
    """
    folded = kernel[0] * in_channels
    parallel = target.input_channel_parallel
    return (
        tuple(dilation) == (1, 1)
        and (tuple(pad[:2]) == (0, 0) or stride[0] <= kernel[0])
        and folded <= target.channel_augmentation
        and round_up(folded, parallel) < kernel[0] * round_up(in_channels, parallel)
    )


def conv_workload_on_arch(
    out_shape: Shape, kernel: Pair, in_channels: int, target: Target, augmented: bool = False
) -> int:
    """`conv_workload` with OH, OC and IC rounded up to the array of `target`.

    `augmented`: a first layer with channel augmentation counts as one of kernel width 1, also
    where KW * IC takes two entries (as the vendor's files do: 6x6x3 on B4096, 3x3x3 on B1024).
    """
    height, width, channels = out_shape
    parallel = target.input_channel_parallel
    if augmented:
        depth = kernel[1] * round_up(in_channels, parallel)
    else:
        depth = prod(kernel) * round_up(in_channels, parallel)
    rows = round_up(height, target.pixel_parallel)
    return rows * width * round_up(channels, target.output_channel_parallel) * (2 * depth + 1)


def _alu_shape(out_shape, target):
    height, width, channels = out_shape
    rows = round_up(height, target.alu_pixel_parallel)
    return rows, width, round_up(channels, target.input_channel_parallel)


def pool_workload_on_arch(out_shape: Shape, kernel: Pair, target: Target, average: bool = False) -> int:
    """`pool_workload` with OH rounded up to the ALU's pixels and C to the channels."""
    return pool_workload(_alu_shape(out_shape, target), kernel, average)


def depthwise_workload_on_arch(out_shape: Shape, kernel: Pair, target: Target) -> int:
    """`depthwise_workload` rounded like a pool, whose engine it runs on."""
    return depthwise_workload(_alu_shape(out_shape, target), kernel)


def eltwise_workload_on_arch(out_shape: Shape, target: Target, inputs: int = 2) -> int:
    """`eltwise_workload` rounded like a pool."""
    return eltwise_workload(_alu_shape(out_shape, target), inputs)


def map_shape(shape: Shape) -> Shape:
    """(H, W, C) of any shape of a Network: a vector (N,) is a 1 x 1 map of N channels."""
    return tuple(shape) if len(shape) == 3 else (1, 1, prod(shape))


def unflattened(network: Network, layer: Layer) -> Layer:
    """The layer whose map `layer` reads, through any flatten between."""
    source = network[layer.inputs[0]]
    while source.operator.renames:
        source = network[source.inputs[0]]
    return source


def dense_kernel(network: Network, layer: Layer) -> tuple[Pair, int]:
    """((KW, KH), IC) of a dense layer as a convolution over what it reads.

    A dense layer behind a flatten covers the whole map that was flattened
    (docs/reference/xmodel.md); behind another vector it is a 1 x 1 convolution.
    """
    source = unflattened(network, layer)
    height, width, channels = map_shape(source.shape)
    return (width, height), channels


def array_fits(kernel: Pair, channels: int, target: Target) -> bool:
    """Whether the convolution array takes a window of (KW, KH) on so many input channels."""
    limits = target.limits
    least, greatest = limits.conv_kernel
    entries = prod(kernel) * ceil(channels / target.input_channel_parallel)
    return (
        all(least <= size <= greatest for size in kernel)
        and channels <= limits.channels
        and entries <= limits.weight_entries
    )


def dense_on_array(network: Network, layer: Layer, target: Target | None = None) -> tuple[Pair, int]:
    """`dense_kernel`; with `target`, the vector factored anew where the map does not fit the array.

    What a flatten gives is a vector, and a map of one image lies in memory without gaps, so any
    height x width x channels with the same product is the same bytes: 28 x 28 x 1 read as 1 x 1 x 784
    gives the same sums with weights in the same order (docs/reference/xmodel.md). Of those that
    fit, the one that the array takes least cycles for; the map itself when there is none.
    """
    kernel, channels = dense_kernel(network, layer)
    if target is None or array_fits(kernel, channels, target):
        return kernel, channels
    size, greatest = prod(kernel) * channels, target.limits.conv_kernel[1]
    fitting = [
        ((width, height), size // (width * height))
        for height in range(1, greatest + 1)
        for width in range(1, greatest + 1)
        if size % (width * height) == 0 and array_fits((width, height), size // (width * height), target)
    ]

    def cost(shape: tuple[Pair, int]) -> tuple[int, int, int]:
        (width, height), depth = shape
        # equal work: few columns, so that a row takes few entries of its bank
        return width * height * ceil(depth / target.input_channel_parallel), width, height

    return min(fitting, key=cost, default=(kernel, channels))


def factors_anew(network: Network, layer: Layer, target: Target) -> bool:
    """Whether `layer` is a dense one that reads its map as one of another shape (`dense_on_array`)."""
    return layer.op == "dense" and dense_on_array(network, layer, target) != dense_kernel(network, layer)


def layer_is_augmented(network: Network, layer: Layer, target: Target) -> bool:
    """Whether `layer` is a convolution that reads the network's input with channel augmentation."""
    if layer.op != "conv" or network[layer.inputs[0]].op != "input":
        return False
    attrs = layer.attrs
    channels = map_shape(network[layer.inputs[0]].shape)[2]
    return augments_channels(
        attrs["kernel"], attrs["stride"], channels, attrs["pad"], attrs["dilation"], target
    )


CONVOLUTION, ALU = "convolution", "alu"


def engine(network: Network, layer: Layer) -> str | None:
    """Which engine works on a layer: the convolution array, the ALU, or None where nothing is computed."""
    operator = layer.operator
    if isinstance(operator, Weighted) and not operator.per_channel:
        return CONVOLUTION
    return ALU if _operations(network, layer, layer.shape) else None


def layer_workload(network: Network, layer: Layer, target: Target) -> tuple[int, int]:
    """(workload, workload_on_arch) of one layer of a folded Network; (0, 0) if it computes nothing.

    input, flatten, concat and softmax count zero, as in the vendor's files, and so do hard sigmoids,
    factors per channel, and what folding removes.
    """
    if not layer.operator.counted([network[name].shape for name in layer.inputs]):
        return 0, 0
    workload, shape = _operations(network, layer, layer.shape), map_shape(layer.shape)
    if engine(network, layer) == CONVOLUTION:
        kernel, channels = layer_window(network, layer, target)
        augmented = layer_is_augmented(network, layer, target)
        return workload, conv_workload_on_arch(shape, kernel, channels, target, augmented)
    return workload, _operations(network, layer, _alu_shape(shape, target)) if workload else 0


def _operations(network, layer, output):
    return layer.operator.operations([network[name].shape for name in layer.inputs], output)


def layer_window(network: Network, layer: Layer, target: Target | None = None) -> tuple[Pair, int]:
    """((KW, KH), IC) that one output of a weighted layer reads; with `target`, as its array does."""
    if layer.op == "dense":
        return dense_on_array(network, layer, target)
    if isinstance(layer.operator, Transposed):  # what one output pixel meets of the kernel
        taps = zip(layer.attrs["kernel"], layer.attrs["stride"], strict=True)
        width, height = (ceil(size / step) for size, step in taps)
        return (width, height), map_shape(network[layer.inputs[0]].shape)[2]
    return layer.attrs["kernel"], map_shape(network[layer.inputs[0]].shape)[2]
