"""The DPUCZDX8G as its machine code sees it: parallelism and on-chip banks
(docs/reference/instruction-set.md)."""

from dataclasses import dataclass

from dpuflow.base.errors import UserError
from dpuflow.device.targets import bank_depth, describe_fingerprint, size_of

FAMILY = "DPUCZDX8G_ISA1"
LEAKY_BIT, ARGMAX_BIT = 28, 30
"""Of a fingerprint's feature code (docs/reference/targets.md)."""
BANK_DEPTH = bank_depth(FAMILY)
"""Entries per bank; every bank address wraps modulo this."""


@dataclass(frozen=True)
class Machine:
    """One DPU size.

    Attributes
    ----------
    pixels : pixel parallelism, also banks per image group (PP).
    channels : input and output channel parallelism, also bytes per bank entry (ICP = OCP).
    alu_pixels : rows one ALU or ELEW instruction handles at most.
    image_groups : groups of `pixels` banks for feature maps.
    leaky_relu, argmax : whether CONV has a leaky ReLU, and SAVE an argmax.

    Banks are numbered image groups first, then `channels` weight banks, one depthwise
    weight bank, one bias bank. A *flat* entry index is bank * BANK_DEPTH + address.
    """

    name: str
    pixels: int
    channels: int
    alu_pixels: int
    image_groups: int = 2
    leaky_relu: bool = True
    argmax: bool = True

    @property
    def image_banks(self) -> int:
        """Number of feature-map banks; also the first weight bank's id."""
        return self.pixels * self.image_groups

    @property
    def weight_bank(self) -> int:
        """Id of the weight bank of output channel 0."""
        return self.image_banks

    @property
    def depthwise_bank(self) -> int:
        """Id of the depthwise weight bank."""
        return self.image_banks + self.channels

    @property
    def bias_bank(self) -> int:
        """Id of the bias bank."""
        return self.depthwise_bank + 1

    @property
    def banks(self) -> int:
        """Number of all banks."""
        return self.bias_bank + 1

    def groups(self, channels: int) -> int:
        """Entries that `channels` bytes of one pixel take: ceil(channels / parallelism)."""
        return -(-channels // self.channels)


def machine_for(fingerprint: int, where: str = "fingerprint") -> Machine:
    """The Machine that a 64-bit DPU fingerprint describes; UserError when it is no DPUCZDX8G ISA1."""
    found = size_of(FAMILY, fingerprint)
    if found is None:
        raise UserError(
            f"{where}: compiled for {describe_fingerprint(fingerprint) or 'an unknown DPU'} (fingerprint"
            f" {fingerprint:#x}), which is not a DPUCZDX8G of instruction set ISA1 (sizes B512 to B4096);"
            " dpuflow supports the machine code of no other"
        )
    name, row = found
    leaky_relu, argmax = (bool(fingerprint >> bit & 1) for bit in (LEAKY_BIT, ARGMAX_BIT))
    parallelism = row["pixel"], row["channel"], fingerprint >> 8 & 0xF
    return Machine(name, *parallelism, fingerprint >> 24 & 3, leaky_relu, argmax)
