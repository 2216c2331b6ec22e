"""The device that the virtual board pretends to be, read from environment variables.

DPUFLOW_VIRTUAL_FINGERPRINT : fingerprint of its DPU, "0x..." (default: B4096 of release 3.0).
DPUFLOW_VIRTUAL_ARCH : name of its DPU.
DPUFLOW_VIRTUAL_CORES : number of DPU cores it reports.
DPUFLOW_VIRTUAL_BATCH : images per call, dims[0] of the tensors (1 on a DPUCZDX8G).
"""

import os
from typing import Any

VERSION = "virtual board (emulated)"


def _number(name, default):
    text = os.environ.get(name, default)
    try:
        return int(text, 0)
    except ValueError:
        raise RuntimeError(f"{name}={text!r} is not a number") from None


def fingerprint() -> int:
    """64-bit fingerprint of the DPU."""
    return _number("DPUFLOW_VIRTUAL_FINGERPRINT", "0x101000056010407")


def arch() -> str:
    """Name of the DPU."""
    return os.environ.get("DPUFLOW_VIRTUAL_ARCH", "DPUCZDX8G_ISA1_B4096")


def batch() -> int:
    """Images per call."""
    return _number("DPUFLOW_VIRTUAL_BATCH", "1")


def query() -> dict[str, Any]:
    """What `xdputil query` prints, in the real one's layout; keys that only hardware has are absent."""
    cores = _number("DPUFLOW_VIRTUAL_CORES", "1")
    return {
        "DPU IP Spec": {"DPU Core Count": cores, "IP version": VERSION},
        "VAI Version": {"libvart-runner.so": VERSION, "libxir.so": VERSION},
        "kernels": [
            {
                "DPU Arch": arch(),
                "IP Type": "DPU",
                "cu_idx": index,
                "fingerprint": hex(fingerprint()),
                "name": f"DPU Core {index}",
            }
            for index in range(cores)
        ],
    }
