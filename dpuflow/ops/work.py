"""How many operations an operator takes, as the vendor's compiler counts (docs/reference/targets.md).

A multiply and an add are two. The formulas are exact against every op of vendor-compiled files of
compilers 2.5 to 3.5; those up to 2.0, for instruction set ISA0, leave out the bias.
"""

from math import prod

Shape = tuple[int, ...]


def conv_workload(out_shape: Shape, kernel: tuple[int, int], in_channels: int) -> int:
    """Operations of a convolution (a dense layer is one): OH OW OC (2 KH KW IC + 1).

    out_shape is (OH, OW, OC), kernel (KW, KH); the + 1 is the bias and is counted
    also without one.
    """
    return prod(out_shape) * (2 * prod(kernel) * in_channels + 1)


def pool_workload(out_shape: Shape, kernel: tuple[int, int], average: bool = False) -> int:
    """Operations of a pool: OH OW C KH KW for the greatest value, twice that for the average."""
    return prod(out_shape) * prod(kernel) * (2 if average else 1)


def depthwise_workload(out_shape: Shape, kernel: tuple[int, int]) -> int:
    """Operations of a depthwise convolution: OH OW C (2 KH KW + 1)."""
    return prod(out_shape) * (2 * prod(kernel) + 1)


def eltwise_workload(out_shape: Shape, inputs: int = 2) -> int:
    """Operations of an elementwise sum or product of `inputs` tensors: OH OW C inputs."""
    return prod(out_shape) * inputs
