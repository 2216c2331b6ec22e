"""What the fields of instructions may say, by name (docs/reference/instruction-set.md)."""

MAX_POOL, AVERAGE_POOL, HARD_SIGMOID = 3, 2, 7
DEPTHWISE, DEPTHWISE_NO_BIAS = 0, 6
PRELU, LEAKY, MAX_REDUCE = 1, 4, 5
EXEC_MODES = {
    *(DEPTHWISE, DEPTHWISE_NO_BIAS, AVERAGE_POOL, MAX_POOL, HARD_SIGMOID),
    *(PRELU, LEAKY, MAX_REDUCE),
}
POINTWISE = (PRELU, LEAKY)
"""Modes that know no window."""
ALU_ACTIVATIONS = {0, 1, 4}
CONV_ACTIVATIONS = {0, 1, 3, 4}
LEAKY_ACTIVATION = 3
SHIFT_BIAS_MAX = 20
SHIFT_CUT_MAX = 31
"""Far beyond any real shift (the vendor's quantizers stop at 16); keeps sums within 64 bits."""
FILL = 7
"""LOAD.broadcast: write const_value instead of reading DDR."""
