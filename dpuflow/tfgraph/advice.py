"""What to say about a node that cannot be read: why, and what to do."""

QUANTIZED = (
    "the network is already quantized, and dpuflow quantizes itself: give the float network that went into "
    "the quantizer (export it again without quantization)"
)
FUNCTION = "a function call; inline functions when freezing (convert_variables_to_constants_v2 does it)"
UNFROZEN = "the graph is not frozen; turn variables into constants first"

ADVICE = {
    **dict.fromkeys(("VariableV2", "Variable", "VarHandleOp", "ReadVariableOp"), UNFROZEN),
    "Sigmoid": "at the end the DPU path has no sigmoid but a single one, for two classes; name what it reads "
    "as the output (models.NAME.output_node)",
    "Tanh": "the DPU has no tanh; use ReLU",
    "Elu": "the DPU has no ELU; use ReLU or LeakyReLU(0.1)",
    "ArgMax": "name the softmax or logits node as the output instead (models.NAME.output_node)",
    **dict.fromkeys(("PartitionedCall", "StatefulPartitionedCall", "If", "StatelessIf"), FUNCTION),
    **dict.fromkeys(
        (
            "FixNeuron",
            "FakeQuantWithMinMaxVars",
            "FakeQuantWithMinMaxArgs",
            "FakeQuantWithMinMaxVarsPerChannel",
            "QuantizeAndDequantize",
            "QuantizeAndDequantizeV2",
            "QuantizeAndDequantizeV3",
            "QuantizeAndDequantizeV4",
            "QuantizeV2",
            "Dequantize",
            "VitisQuantize",
        ),
        QUANTIZED,
    ),
}


def advice(op: str) -> str:
    """Why `op` cannot be read and what to do."""
    if op.startswith("Quantized"):
        return QUANTIZED
    if op in ADVICE and ADVICE[op] in (QUANTIZED, UNFROZEN):
        return ADVICE[op]
    what = ADVICE.get(
        op,
        "retrain the network without it, or end a frozen graph before it (models.NAME.output_node)",
    )
    return f"not supported on the DPU path: {what}. docs/operators.md lists the operators that are"
