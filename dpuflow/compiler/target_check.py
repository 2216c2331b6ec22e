"""Which layers a DPU cannot run, why, and what to change.

Limits: docs/reference/targets.md (the vendor's target files and UG1414's table of
supported operators), read from the Target. A layer outside them would be left to
the CPU by the vendor's compiler, which makes a second, slow device out of the board.
"""

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from dpuflow.base.errors import UserError
from dpuflow.base.totality import Total
from dpuflow.compiler.workload import dense_on_array, map_shape
from dpuflow.device.dpuczdx8g import LEAKY_RELU_SLOPE
from dpuflow.device.targets import Target
from dpuflow.network import Network, QuantizedNetwork
from dpuflow.ops import OPERATORS, kinds
from dpuflow.ops.convolution import weighted
from dpuflow.ops.resampling import ResizeBilinear

log = logging.getLogger("dpuflow")

POLICIES = ("error", "warn", "allow")

SMALLER_KERNEL = "use a smaller kernel, or several smaller ones in a row"
SMALLER_STRIDE = "use a smaller stride, or a pooling layer for part of it"


@dataclass(frozen=True)
class Finding:
    """A layer that leaves the DPU: the limit it breaks, its value, what is allowed, why, and a remedy."""

    layer: str
    op: str
    limit: str
    value: Any
    allowed: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return (
            f"{self.layer} ({self.op}): {self.limit} is {self.value}, allowed {self.allowed}; "
            f"{self.reason}; remedy: {self.remedy}"
        )


def check(network: Network | QuantizedNetwork, target: Target) -> list[Finding]:
    """Findings of a Network or QuantizedNetwork for a Target, in layer order ([] if all run on the DPU).

    A softmax at the end belongs to the CPU anyway and is no finding. Layers that
    folding removes (batch_norm, a relu behind a convolution) are judged by what
    becomes of them.
    """
    if isinstance(network, QuantizedNetwork):
        network = network.network
    findings = []
    for layer in network.layers:
        findings.extend(RULES[layer.op](_Subject(layer, target), network))
    return findings


def enforce(findings: Sequence[Finding], on_cpu: str, target: Target) -> None:
    """Apply the policy `on_cpu`: "error" raises UserError, "warn" logs, "allow" is silent."""
    if on_cpu not in POLICIES:
        raise UserError(f"on_cpu is {on_cpu!r}; write one of {', '.join(POLICIES)}")
    if not findings or on_cpu == "allow":
        return
    lines = "\n".join(f"  {finding}" for finding in findings)
    count = len({finding.layer for finding in findings})
    head = f"{count} {'layer' if count == 1 else 'layers'} cannot run on {target.name} ({target.dpu})"
    if on_cpu == "warn":
        log.warning("warning: %s and will run on the CPU:\n%s", head, lines)
        return
    raise UserError(
        f"{head}:\n{lines}\nChange the network, choose a larger target, or set `on_cpu: warn` "
        "to leave them to the CPU."
    )


class _Subject:
    """A layer under check: makes Findings about it."""

    def __init__(self, layer, target):
        self.layer, self.target, self.limits = layer, target, target.limits

    def finding(self, limit: str, value: Any, allowed: str, reason: str, remedy: str) -> Finding:
        return Finding(self.layer.name, self.layer.op, limit, value, allowed, reason, remedy)

    def pair_in(
        self, limit: str, pair: tuple[int, int], allowed: tuple[int, int], reason: str, remedy: str
    ) -> Iterator[Finding]:
        """Findings of a (w, h) pair whose members must lie in a range."""
        least, greatest = allowed
        for axis, value in zip(("width", "height"), pair, strict=True):
            if not least <= value <= greatest:
                yield self.finding(f"{limit} {axis}", value, f"{least} to {greatest}", reason, remedy)

    def at_most(self, limit: str, value: int, greatest: int, reason: str, remedy: str) -> Iterator[Finding]:
        if value > greatest:
            yield self.finding(limit, value, f"at most {greatest}", reason, remedy)

    def activation(self, allowed: Collection[str]) -> Iterator[Finding]:
        name = self.layer.attrs.get("activation", "NONE")
        if name not in allowed:
            yield self.finding(
                "activation",
                name,
                " or ".join(allowed),
                "the engine cannot fuse it",
                "use one of those activations",
            )
        alpha = self.layer.attrs.get("alpha")
        if name == "LEAKYRELU" and alpha is not None:
            yield from self.slope(alpha)

    def slope(self, alpha: float) -> Iterator[Finding]:
        numerator, shift = LEAKY_RELU_SLOPE
        exact = numerator / 2**shift
        # frameworks' customary 0.1 is what the hardware's 26/256 stands for
        if abs(alpha - exact) > 0.5 / 2**shift:
            yield self.finding(
                "leaky slope",
                float(alpha),
                f"{exact} ({numerator}/{2**shift}; 0.1 is taken for it)",
                "the slope is fixed in the hardware",
                f"train with negative slope {exact}",
            )


def _source_shape(network, layer):
    return map_shape(network[layer.inputs[0]].shape)


def _array(subject, kernel, in_channels, out_channels, dilation, kernel_remedy):
    """Limits that a convolution and a dense layer share."""
    limits, target = subject.limits, subject.target
    parallel = target.input_channel_parallel
    yield from subject.pair_in(
        "kernel", kernel, limits.conv_kernel, "the convolution engine has no larger window", kernel_remedy
    )
    groups = -(-in_channels // parallel)
    yield from subject.at_most(
        "kernel_w * kernel_h * ceil(input channels / parallelism)",
        kernel[0] * kernel[1] * groups,
        limits.weight_entries,
        "the weights of one output channel must fit a weight bank, and partial sums cannot be kept",
        "use fewer input channels or a smaller kernel, or pool before this layer",
    )
    reason = f"channel counters reach 256 groups of {parallel}"
    yield from subject.at_most("input channels", in_channels, limits.channels, reason, "use fewer channels")
    yield from subject.at_most("output channels", out_channels, limits.channels, reason, "use fewer channels")
    if max(dilation) > 1:
        yield from subject.at_most(
            "dilation * input channels",
            max(dilation) * in_channels,
            limits.channels,
            "dilation is done by skipping channel groups",
            "use a smaller dilation or fewer channels",
        )


def _conv(subject, network):
    attrs = subject.layer.attrs
    in_channels = _source_shape(network, subject.layer)[2]
    yield from _array(
        subject,
        attrs["kernel"],
        in_channels,
        map_shape(subject.layer.shape)[2],
        attrs["dilation"],
        SMALLER_KERNEL,
    )
    yield from subject.pair_in(
        "stride", attrs["stride"], subject.limits.conv_stride, "the field of the instruction", SMALLER_STRIDE
    )
    yield from _conv_padding(subject)
    yield from subject.activation(subject.limits.conv_activations)


def _conv_padding(subject):
    attrs = subject.layer.attrs
    for index, side in enumerate(("left", "right", "top", "bottom")):
        axis = index // 2
        greatest = (attrs["kernel"][axis] - 1) * attrs["dilation"][axis]
        value = attrs["pad"][index]
        if not 0 <= value <= greatest:
            yield subject.finding(
                f"padding {side}",
                value,
                f"0 to {greatest}",
                "a window that lies in the padding alone is not supported",
                "pad less, or use a larger kernel",
            )


def _transposed(subject, network):
    """As its phases, convolutions with every stride-th tap, run: of channels each alone on the ALU."""
    attrs, limits = subject.layer.attrs, subject.limits
    kernel, stride = attrs["kernel"], attrs["stride"]
    taps = tuple(-(-size // step) for size, step in zip(kernel, stride, strict=True))
    reason = "the field of the instruction"
    yield from subject.pair_in("stride", stride, limits.conv_stride, reason, SMALLER_STRIDE)
    yield from subject.pair_in("kernel", kernel, limits.conv_kernel, "no larger window", SMALLER_KERNEL)
    if weighted(subject.layer.operator).per_channel:
        yield from subject.activation(limits.depthwise_activations)
        return
    channels = _source_shape(network, subject.layer)[2], map_shape(subject.layer.shape)[2]
    yield from _array(subject, taps, *channels, (1, 1), SMALLER_KERNEL)
    yield from subject.activation(limits.conv_activations)


def _dense(subject, network):
    kernel, in_channels = dense_on_array(network, subject.layer, subject.target)
    yield from _array(
        subject,
        kernel,
        in_channels,
        subject.layer.shape[-1],
        (1, 1),
        "a dense layer is a convolution over the whole map, and no other height x width x channels of its "
        f"{prod(kernel) * in_channels} inputs fits either: pool before the flatten (or use global average "
        "pooling) until the map is at most 16 x 16",
    )
    yield from subject.activation(subject.limits.conv_activations)


def _alu(subject, kernel_reason):
    """Limits of the ALU engine's window."""
    attrs, limits = subject.layer.attrs, subject.limits
    yield from subject.pair_in("kernel", attrs["kernel"], limits.alu_kernel, kernel_reason, SMALLER_KERNEL)
    yield from subject.pair_in(
        "stride", attrs["stride"], limits.alu_stride, "the field of the instruction", SMALLER_STRIDE
    )
    for side, value, greatest in zip(
        ("left", "right", "top", "bottom"), attrs["pad"], limits.alu_pad, strict=True
    ):
        if not 0 <= value <= greatest:
            yield subject.finding(
                f"padding {side}", value, f"0 to {greatest}", "the field of the instruction", "pad less"
            )


def _pool(subject, network):
    yield from _alu(subject, "the pooling engine has no larger window")


def _depthwise(subject, network):
    layer, target = subject.layer, subject.target
    yield from _alu(subject, "the depthwise engine has no larger window")
    kernel = layer.attrs["kernel"]
    yield from subject.at_most(
        "kernel_w * kernel_h",
        kernel[0] * kernel[1],
        target.banks["depthwise"].depth,
        "the weights of one channel group must fit the depthwise bank",
        SMALLER_KERNEL,
    )
    in_channels, out_channels = _source_shape(network, layer)[2], map_shape(layer.shape)[2]
    if in_channels != out_channels:
        yield subject.finding(
            "channel multiplier",
            out_channels / in_channels,
            "1",
            "each channel has one filter",
            "follow the depthwise layer with a 1 x 1 convolution",
        )
    if max(layer.attrs["dilation"]) > 1:
        yield subject.finding(
            "dilation",
            tuple(layer.attrs["dilation"]),
            "1",
            "the depthwise instruction has no dilation",
            "use a larger kernel instead",
        )
    yield from subject.activation(subject.limits.depthwise_activations)


def _add(subject, network):
    shapes = {tuple(network[name].shape) for name in subject.layer.inputs}
    if len(shapes) > 1:
        yield subject.finding(
            "input shapes",
            sorted(shapes),
            "equal shapes",
            "elementwise addition does not broadcast",
            "bring the branches to one shape with a 1 x 1 convolution",
        )
    yield from subject.activation(("NONE", "RELU"))


def _bilinear(subject, network):
    operator = subject.layer.operator
    assert isinstance(operator, ResizeBilinear)  # by the table's row
    height, width, _ = _source_shape(network, subject.layer)
    if operator.kernel((height, width, 1)) is None:
        yield subject.finding(
            "bilinear resizing",
            f"{height} x {width} to {operator.size[1]} x {operator.size[0]}, {operator.grid}",
            "factors 2 and 4 of half_pixel_centers; 2, 4 and 8 without it; no align_corners",
            "it is a convolution whose weights must be exact in int8",
            "resize by such factors, or use nearest",
        )


def _multiply(subject, network):
    if "MUL" not in subject.limits.eltwise:
        yield subject.finding(
            "elementwise operations",
            "MUL",
            " or ".join(subject.limits.eltwise),
            "the engine cannot multiply",
            "choose a target that can, or do without gates",
        )


def _pixel_shuffle(subject, network):
    """A convolution (transposed where channels become pixels) whose kernel is its stride."""
    scale, upscale = (subject.layer.attrs[name] for name in ("scale", "upscale"))
    yield from subject.pair_in(
        "scale", (scale, scale), subject.limits.conv_stride, "it is a convolution of that stride",
        "shuffle in two steps",
    )  # fmt: skip
    kernel = (1, 1) if upscale else (scale, scale)
    channels = _source_shape(network, subject.layer)[2], map_shape(subject.layer.shape)[2]
    yield from _array(subject, kernel, *channels, (1, 1), "shuffle in two steps")


def _leaky(subject, network):
    """Folding makes two depthwise convolutions and a sum of slopes that the DPU does not have."""
    if subject.layer.attrs["alpha"] >= 1:
        yield from subject.slope(subject.layer.attrs["alpha"])


def _between(subject, network):
    """A layer in float belongs behind the DPU's; what takes it back to the DPU is the finding."""
    source = network[subject.layer.inputs[0]]
    yield subject.finding(
        "position",
        f"behind {source.op} {source.name}",
        "behind layers of the DPU",
        f"{source.op} runs on the CPU in float, so that the DPU waits for it and begins anew",
        "use such layers (softmax, sigmoid, transpose, reshape, arithmetic) behind all others only; "
        "of a network with transposed axes: train and export with channels_last (NHWC)",
    )


def _free(subject, network):
    """No limit of its own: it moves bytes, or folding makes something else of it."""
    return ()


RULES = Total(
    "compiler.target_check: limits of a layer",
    OPERATORS,
    {
        "conv": _conv,
        "dense": _dense,
        **dict.fromkeys(("transposed_conv", "transposed_depthwise_conv"), _transposed),
        "depthwise_conv": _depthwise,
        "max_pool": _pool,
        "avg_pool": _pool,
        "avg_pool_inside": _pool,
        "add": _add,
        "multiply": _multiply,
        "pixel_shuffle": _pixel_shuffle,
        "leaky_relu": _leaky,
        "resize_bilinear": _bilinear,
        "to_grid": _between,
        **dict.fromkeys(kinds(lambda operator: not operator.quantized), _free),
        **dict.fromkeys(("upsample", "downsample", "input", "output", "concat", "flatten"), _free),
        **dict.fromkeys(("relu", "relu6", "batch_norm", "hard_sigmoid", "sigmoid"), _free),
    },
)
