"""What limits a layer, in words, and what helps: for reports of an estimate."""

from dpuflow.base.totality import Total

COMPUTE, MEMORY, INSTRUCTIONS = "compute", "memory", "instructions"
"""Its engine, the bytes from and to DDR, or the instructions: each takes cycles besides its work."""

_LIMITS = {
    "convolution": "the array",
    "alu": "the ALU",
    MEMORY: "DDR bytes",
    INSTRUCTIONS: "instruction issue",
}
LIMITS = tuple(_LIMITS.values())
HELP = Total(
    "dpuczdx8g.bounds: what helps a layer",
    LIMITS,
    {
        "the array": "fewer operations, or channels and rows that fill the array's parallelism",
        "the ALU": "smaller windows or maps of depthwise and pooling layers, or plain convolutions in their"
        " place, of which the array does many times the operations in a cycle",
        "DDR bytes": "smaller maps or weights, so that maps stay on chip, or a larger DPU",
        "instruction issue": "fewer and larger layers, which an engine computes and moves in longer pieces",
    },
)


def limit(bound: str, engine: str) -> str:
    """One of LIMITS: of a layer's `bound`, and of the engine that computes it."""
    return _LIMITS[engine if bound == COMPUTE else bound]
