"""docs/operators.md: every supported node type of TensorFlow and what becomes of it, every Keras layer.

``python -m dpuflow.tfgraph.operator_docs > docs/operators.md``. Node types are those of the reader's table
(`node_translation.HANDLERS`); one that has no words here is an error. What a Keras layer becomes is held
by a test against the frozen and folded network.
"""

from dpuflow.keras_models.rebuild import NOTHING_AT_INFERENCE
from dpuflow.tfgraph import float_reading
from dpuflow.tfgraph.node_translation import HANDLERS

GROUPS = {
    "Convolution engine": {
        "Conv2D": "conv; groups and dilation as the target's limits allow",
        "Conv2DBackpropInput": "transposed_conv",
        "MatMul": "dense, a convolution over the whole map; on a map's channels: a 1x1 conv",
        "BatchToSpaceND SpaceToBatchND": "dilation of the convolution between the two",
        "Split SplitV": "a choice of channels (of a grouped convolution that was written out, say)",
        "DepthToSpace SpaceToDepth": "pixel_shuffle, a convolution that takes one value each",
    },
    "ALU engine": {
        "DepthwiseConv2dNative": "depthwise_conv",
        "DepthwiseConv2dNativeBackpropInput": "transposed_depthwise_conv",
        "MaxPool MaxPoolV2": "max_pool",
        "AvgPool": "avg_pool; with padding (SAME) avg_pool_inside, each window with its own divisor",
        "Mean": "avg_pool over the whole map, its rows or its columns",
        "Max": "max_pool over the whole map, its rows or its columns",
        "Concat ConcatV2": "concat along the channels",
    },
    "Resizing": {
        "ResizeNearestNeighbor": "upsample by a whole factor, while saving; every n-th pixel: downsample",
        "ResizeBilinear": "resize_bilinear: by 2, 4 or 8 (half_pixel_centers: 2, 4) a transposed depthwise "
        "convolution on the ALU, else on the CPU",
    },
    "Activations, fused into the layer before": {
        "Relu": "RELU",
        "Relu6": "RELU6",
        "LeakyRelu": "LEAKYRELU, slope 26/256; another slope a below 1 is a x + (1 - a) relu(x): two "
        "depthwise_conv and an add",
        "Maximum": "max(x, 0) is RELU, max(x, alpha x) LEAKYRELU; of two maps a + relu(b - a)",
        "Minimum": "min(relu(x), 6) is RELU6; relu6(x + 3) / 6, and what is cut to 0 ... c, is hard_sigmoid "
        "on the ALU; of another constant c: c - relu(c - x)",
    },
    "Arithmetic": {
        "Add AddV2": "of two maps: elementwise addition on the ALU; of a constant: part of the bias",
        "AddN": "additions, one after the other",
        "BiasAdd": "bias of the layer before",
        "FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3": "folded into weights and bias",
        "Mul RealDiv Sub Neg": "with a constant: factor or offset per channel, folded into weights and bias; "
        "Mul of two maps, or of a map and one factor per channel or per pixel (squeeze-and-excitation): "
        "multiply on the ALU",
        "Pad PadV2": "padding of the layer behind",
        "FloorMod Pow Rsqrt Sqrt Square": "computed, of constants only (a batch norm that was written out)",
    },
    "Output, on the CPU": {
        "Softmax": "softmax; over each pixel of a map, too, behind all layers of the DPU",
        "Sigmoid": "a single one at the end: softmax of two classes; inside the network hard_sigmoid on the "
        "ALU instead, as the vendor's quantizers do it (what that costs stands in quantization.json)",
    },
    "Values, shapes and their order": {
        "Const": "weights, bias, or a setting of the node that reads it",
        "Cast CheckNumerics Identity IdentityN Snapshot StopGradient": "nothing: the values stay",
        "Reshape Squeeze ExpandDims": "flatten, or nothing where the order of the values stays",
        "Transpose": "nothing where only axes of size 1 move; between two reshapes channel shuffle, depth to "
        "space and space to depth; others are refused",
        "Gather GatherV2 ReverseV2": "order of the channels, in the weights behind or in front, else a 1x1 "
        "conv",
        "Pack Prod Shape StridedSlice": "computed when the graph is read: sizes. StridedSlice of a map: a "
        "choice of channels; of rows and columns downsample, or a depthwise_conv that takes them",
    },
    "Training's side of a graph, as inference takes it": {
        "Switch Merge Select SelectV2": "the side of inference",
        "Equal GreaterEqual Less LogicalAnd LogicalNot LogicalOr": "computed when the graph is read",
        "PlaceholderWithDefault": "its default, or inference's value of a training switch",
        "Floor RandomUniform StatelessRandomUniform StatelessRandomUniformV2": "dropout, which does nothing",
    },
}
"""Heading -> {node types: what they become}."""

KERAS = {
    "Conv2D": "conv",
    "Conv2D, groups": "conv",
    "Conv2D, dilation_rate": "conv",
    "SeparableConv2D": "depthwise_conv, conv",
    "DepthwiseConv2D": "depthwise_conv",
    "Conv2DTranspose": "transposed_conv",
    "Dense": "dense",
    "Dense on a map": "conv",
    "MaxPooling2D": "max_pool",
    "AveragePooling2D": "avg_pool",
    "AveragePooling2D, padding same": "avg_pool_inside",
    "GlobalMaxPooling2D": "max_pool",
    "GlobalAveragePooling2D": "avg_pool",
    "Add": "add",
    "Concatenate": "concat",
    "UpSampling2D": "upsample",
    "UpSampling2D, bilinear": "resize_bilinear",
    "BatchNormalization": "",
    "ReLU": "",
    "LeakyReLU, alpha 0.1": "",
    "Activation relu": "",
    "ZeroPadding2D": "",
    "Flatten": "",
    "Reshape": "",
    "Dropout": "",
    "SpatialDropout2D": "",
    "Rescaling": "",
}
"""Keras layer -> layers of the folded network that it adds; none where it is folded away."""

HEAD = """\
# Operators

Made from the reader's tables by `python -m dpuflow.tfgraph.operator_docs > docs/operators.md`; a test keeps
it current. Whether a layer runs on a given DPU is a question of its size, too (kernel, stride, channels): the
compiler names each layer beyond a limit and what to change; of a network that is given as `layers`, Snakemake
does so before anything is trained.
"""


BEHIND = """\
## Behind the DPU's last layers

What no layer of the DPU reads any more may be anything of the following, in float32 on the CPU: a
detector's reshape, transpose, softmax, sigmoid, slices, concatenation and arithmetic, a segmentation's
softmax over each pixel. The xmodel holds it as float ops behind `fix2float`, the emulator and the board's
application compute it. Where it would stand between layers of the DPU, a graph is refused as the tables
above say. A graph with several outputs: name all of them.
"""


def document() -> str:
    """The Markdown text; KeyError names a node type without words, or words without one."""
    described = [node for group in GROUPS.values() for nodes in group for node in nodes.split()]
    undescribed = sorted(HANDLERS.keys() ^ set(described))
    if undescribed or len(described) != len(set(described)):
        raise KeyError(f"operator_docs.GROUPS and node_translation.HANDLERS differ in {undescribed}")
    lines = [HEAD, "## Layers of Keras (`keras_h5`)\n", "| layer | becomes |", "| --- | --- |"]
    lines += [
        f"| {layer} | {ops or 'nothing of its own: folded into its neighbours'} |"
        for layer, ops in KERAS.items()
    ]
    lines.append(f"| {', '.join(NOTHING_AT_INFERENCE)} | nothing: they act in training only |")
    lines.append(f"\n## Nodes of TensorFlow (`frozen_pb`): {len(HANDLERS)} types\n")
    for heading, nodes in GROUPS.items():
        lines += [f"### {heading}\n", "| node | becomes |", "| --- | --- |"]
        lines += [
            f"| {', '.join(f'`{node}`' for node in names.split())} | {what} |"
            for names, what in nodes.items()
        ]
        lines.append("")
    on_cpu = ", ".join(f"`{node}`" for node in sorted(float_reading.HANDLERS))
    lines += [BEHIND, on_cpu + "."]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    print(document(), end="")
