"""Convolution and max pooling in C: on 8-bit dot-product instructions (VNNI), or on AVX2.

`c_kernels.c` is compiled once with the machine's C compiler and kept in the user's cache
folder; where there is no compiler or not even AVX2, `library` returns None and the
NumPy kernels do the same work, bit for bit, only slower. DPUFLOW_EMULATOR=numpy in the
environment forces that.
"""

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from dpuflow.emulator.kernels import Kernel, Workspace, padded
from dpuflow.emulator.operations import Conv, Pool, window_output
from dpuflow.emulator.requantise import OutOfRangeError, Requantise
from dpuflow.xir.shapes import Shape

SOURCE = Path(__file__).with_name("c_kernels.c")
FLAGS = ("-O3", "-march=native", "-shared", "-fPIC")
_INT8 = np.dtype(np.int8)
_SLACK = 64
"""Bytes behind the last row: a window's last group of four may end up to three bytes late."""


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels (ctypes.CDLL), or None where they cannot be had."""
    if os.environ.get("DPUFLOW_EMULATOR", "") == "numpy":
        return None
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    name = f"kernels-{_fingerprint(compiler)}.so"
    try:
        return _from_cache(compiler, name)
    except (OSError, RuntimeError):  # no home folder, or it is read-only or full
        return _without_cache(compiler, name)
    except subprocess.SubprocessError:
        return None


def instructions() -> str:
    """What the compiled kernels multiply with: "AVX512-VNNI", "AVX-VNNI" or "AVX2"."""
    name = _loaded().instructions
    name.restype = ctypes.c_char_p
    return name().decode()


def _loaded() -> ctypes.CDLL:
    """`library`, for who has made sure that there is one."""
    kernels = library()
    if kernels is None:
        raise RuntimeError("this machine has no compiled kernels: ask `c_kernels.library` first")
    return kernels


def _from_cache(compiler: str, name: str) -> ctypes.CDLL:
    """Load the kernels from $XDG_CACHE_HOME/dpuflow or ~/.cache/dpuflow, compiled there if new."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "dpuflow"
    path = folder / name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as private:
            # complete before it gets its name: another process may look for it meanwhile
            os.replace(_compile(compiler, Path(private) / name), path)
    return ctypes.CDLL(str(path))


def _without_cache(compiler: str, name: str) -> ctypes.CDLL | None:
    """Compile for this process only."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            return ctypes.CDLL(str(_compile(compiler, Path(folder) / name)))
    except (OSError, subprocess.SubprocessError):
        return None


def _fingerprint(compiler: str) -> str:
    """Changes with the source, the flags and the processor (-march=native)."""
    digest = hashlib.sha256(SOURCE.read_bytes() + " ".join((compiler, *FLAGS)).encode())
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            digest.update(next((line for line in stream if line.startswith("flags")), "").encode())
    except OSError:
        pass
    return digest.hexdigest()[:16]


def _compile(compiler: str, path: Path) -> Path:
    command = [*shlex.split(compiler), *FLAGS, "-o", str(path), str(SOURCE)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return path


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _integers(*values: int) -> list[ctypes.c_int64]:
    return [ctypes.c_int64(v) for v in values]


class NativeConv:
    """conv2d-fix without groups, int8 in and out; OutOfRangeError if 32-bit sums could overflow."""

    def __init__(self, op: Conv, shape: Shape) -> None:
        if op.kind != "conv2d" or op.group != 1 or op.nonlinear.kind not in ("NONE", "RELU", "RELU6"):
            raise OutOfRangeError
        self.op = op
        _, h, w, c = shape
        (kernel_w, kernel_h), (dil_w, dil_h) = op.kernel, op.dilation
        self.out_h = window_output(h, kernel_h, op.stride[1], dil_h, op.pad[2], op.pad[3])
        self.out_w = window_output(w, kernel_w, op.stride[0], dil_w, op.pad[0], op.pad[1])
        rows = op.weights.reshape(op.weights.shape[0], -1).astype(np.int64)
        absolute = np.abs(rows).sum(axis=1)
        steps = Requantise(128 * absolute, op.shift_cut, op.nonlinear, op.fix_out, op.bias, op.shift_bias)
        if not 0 <= op.shift_cut <= 30:
            raise OutOfRangeError
        offsets, self.shift = steps.integer_offsets, op.shift_cut
        if max(int(255 * a) + abs(v) for a, v in zip(absolute, offsets, strict=True)) >= 1 << 31:
            raise OutOfRangeError
        self.low, self.high = steps.low, steps.high
        self.row = (w + op.pad[0] + op.pad[1]) * c
        self.image = (h + op.pad[2] + op.pad[3]) * self.row
        self._pack(rows, offsets, c)

    def _pack(self, rows: np.ndarray, offsets: Sequence[int], channels: int) -> None:
        """Weights as [groups of four bytes, OC (padded), 4], offsets without the activations' +128."""
        op = self.op
        lanes = _loaded().lanes()
        (kernel_w, kernel_h), (dil_w, dil_h) = op.kernel, op.dilation
        joined = kernel_w if dil_w == 1 else 1
        starts = [
            kh * dil_h * self.row + kw * dil_w * channels
            for kh in range(kernel_h)
            for kw in range(0, kernel_w, joined)
        ]
        length = joined * channels
        quads = -(-length // 4)
        self.start = (np.array(starts)[:, None] + 4 * np.arange(quads)).reshape(-1).astype(np.int64)
        outputs = rows.shape[0]
        wide = -(-outputs // lanes) * lanes
        packed = np.zeros((len(starts), quads * 4, wide), np.int8)
        packed[:, :length, :outputs] = rows.reshape(outputs, len(starts), length).transpose(1, 2, 0)
        packed = packed.reshape(len(starts) * quads, 4, wide).transpose(0, 2, 1)
        self.weights = np.ascontiguousarray(packed)
        self.offset = np.zeros(wide, np.int32)
        self.offset[:outputs] = np.array(offsets, dtype=np.int64) - 128 * rows.sum(axis=1)
        self.constants = [_pointer(array) for array in (self.weights, self.offset)]
        self.start_pointer = _pointer(self.start)

    def __call__(self, inputs: Sequence[np.ndarray], workspace: Workspace) -> np.ndarray:
        (x,) = inputs
        x = np.ascontiguousarray(x)
        n, h, w, c = x.shape
        left, _, top, _ = self.op.pad
        source = workspace.take(self, "shifted", (n * self.image + _SLACK,), np.uint8, 128)
        start = source.ctypes.data + top * self.row + left * c
        call = _loaded()
        call.shift_into(_pointer(x), ctypes.c_void_p(start), *_integers(n, h, w * c, self.image, self.row))
        outputs = self.op.weights.shape[0]
        out = workspace.take(self, "out", (n, self.out_h, self.out_w, outputs), _INT8)
        rows, columns = self.row * self.op.stride[1], c * self.op.stride[0]
        call.convolve(
            *(_pointer(source), *self.constants, _pointer(out), self.start_pointer),
            *_integers(len(self.start), n, self.image, rows, columns, self.out_h, self.out_w, outputs),
            *(ctypes.c_int32(v) for v in (self.shift, self.low, self.high)),
        )
        return out


class NativeMaxPool:
    """pool-fix MAX with equal fix points, int8 in and out."""

    def __init__(self, op: Pool, shape: Shape) -> None:
        if op.kind != "MAX" or op.shift != 0:
            raise OutOfRangeError
        self.op = op
        _, h, w, _ = shape
        self.out_h = window_output(h, op.kernel[1], op.stride[1], 1, op.pad[2], op.pad[3])
        self.out_w = window_output(w, op.kernel[0], op.stride[0], 1, op.pad[0], op.pad[1])

    def __call__(self, inputs: Sequence[np.ndarray], workspace: Workspace) -> np.ndarray:
        op, (x,) = self.op, inputs
        x = np.ascontiguousarray(padded(self, x, op.pad, workspace, _INT8, -128))
        n, h, w, c = x.shape
        out = workspace.take(self, "out", (n, self.out_h, self.out_w, c), _INT8)
        _loaded().max_pool(
            _pointer(x),
            _pointer(out),
            *_integers(n, h, w, c, self.out_h, self.out_w, *op.kernel[::-1], *op.stride[::-1]),
        )
        return out


class ThroughFloat:
    """A NumPy kernel between int8 neighbours."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def __call__(self, inputs: Sequence[np.ndarray], workspace: Workspace) -> np.ndarray:
        result = self.kernel(inputs, workspace)
        out = workspace.take(self, "int8", result.shape, _INT8)
        np.copyto(out, result, casting="unsafe")
        return out
