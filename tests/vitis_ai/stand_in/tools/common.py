"""What the stand-in tools share: strict command lines and the network they carry along.

The vendor's tools hand a network on in their own files. The stand-ins write files that look like them where
dpuflow reads them, and put the QuantizedNetwork beside it, so that the next stand-in need not parse it back.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from dpuflow.network.quantized_file import read_quantized, write_quantized

BANNER = "dpuflow stand-in for {}: not the vendor's program, results by dpuflow's reference code"


class Strict(argparse.ArgumentParser):
    """Arguments by their full name only; any mistake is an error of the stand-in."""

    def __init__(self, tool):
        super().__init__(prog=f"stand-in {tool}", allow_abbrev=False)

    def refuse(self, message):
        """Stop: the real tool would, too."""
        sys.exit(f"{self.prog}: {message}")


def to_bytes(quantized):
    """A QuantizedNetwork as bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "q.h5"
        write_quantized(path, quantized)
        return path.read_bytes()


def from_bytes(data):
    """Inverse of `to_bytes`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "q.h5"
        path.write_bytes(data)
        return read_quantized(path)
