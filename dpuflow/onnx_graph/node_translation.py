"""Every ONNX operator that is read, and what to say about the others."""

from dpuflow.onnx_graph import (
    arithmetic_nodes,
    joining_nodes,
    pooling_nodes,
    resizing_nodes,
    shape_nodes,
    transposed_nodes,
    weighted_nodes,
)

HANDLERS = (
    arithmetic_nodes.HANDLERS
    | joining_nodes.HANDLERS
    | pooling_nodes.HANDLERS
    | resizing_nodes.HANDLERS
    | shape_nodes.HANDLERS
    | transposed_nodes.HANDLERS
    | weighted_nodes.HANDLERS
)
"""Operator -> handler (`values`)."""

_CONTROL = "a branch or loop; export the network for one fixed path (no if on tensors, no loops)"
_END = "end the network in front of it: name that tensor as the output (models.NAME.output_node)"
_RECURRENT = "a recurrent layer; the DPU has none"
_NORM = "a normalisation that looks at each image; train with BatchNorm2d, which becomes part of the weights"
_TRANSFORMER = "part of an attention layer; the DPU has convolutions, pooling and sums"
ADVICE = {
    **dict.fromkeys(("If", "Loop", "Scan"), _CONTROL),
    **dict.fromkeys(("ArgMax", "NonMaxSuppression", "TopK"), _END),
    **dict.fromkeys(("LogSoftmax", "Hardmax"), _END),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), _RECURRENT),
    **dict.fromkeys(("GroupNormalization", "InstanceNormalization", "LRN", "LayerNormalization"), _NORM),
    **dict.fromkeys(("Attention", "MultiHeadAttention", "SkipLayerNormalization"), _TRANSFORMER),
    "ReduceL2": f"a division by the length of a vector or of each pixel's; {_END}",
    "Elu": "train with ReLU or LeakyReLU(26/256)",
    "Erf": "part of a GELU; train with ReLU",
    "Gelu": "train with ReLU",
    "Mish": "train with ReLU, ReLU6 or Hardswish",
    "Selu": "train with ReLU",
    "Softplus": "train with ReLU",
    "Tanh": "train with ReLU",
    "MaxUnpool": "train with nearest upsampling (Resize) or ConvTranspose2d",
}


def advice(op: str) -> str:
    """Why `op` cannot be read and what the exporter or the network could do instead."""
    what = ADVICE.get(op, f"retrain the network without it, or {_END}")
    return f"not supported on the DPU path: {what}. docs/onnx.md lists the operators that are"
