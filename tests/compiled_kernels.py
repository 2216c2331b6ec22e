"""Whether the emulator's C kernels can be had on this machine, for tests that need them."""

import shutil

import pytest

from dpuflow.emulator import c_kernels


def need_compiled_kernels():
    """Skip the test where there are none, with the reason that applies."""
    if c_kernels.library() is not None:
        return
    if not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        pytest.skip("needs a C compiler (make test-tools)")
    pytest.skip("this processor has no 8-bit dot-product instructions that the C kernels use")
