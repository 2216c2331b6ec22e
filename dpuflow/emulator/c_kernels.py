"""The compiled kernels: built at first use, and the structures that they read.

The C files below `native` are compiled once with the machine's C compiler, for this processor's
instructions, and kept in the user's cache folder; where there is no compiler or not even AVX2, `library`
returns None and the NumPy kernels do the same work, bit for bit, only slower. DPUFLOW_EMULATOR=numpy in the
environment forces that.
"""

import ctypes
import hashlib
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dpuflow.base.aligned import aligned
from dpuflow.base.errors import UserError

log = logging.getLogger("dpuflow")

FOLDER = Path(__file__).parent / "native"
HEADERS = ("program.h", "vectors.h", "epilogue.h", "run.h")
SOURCES = (
    "convolve.c",
    "depthwise.c",
    "pool.c",
    "elementwise.c",
    "resize.c",
    "run.c",
    "bands.c",
    "crew.c",
    "pixels.c",
)
FLAGS = ("-O3", "-march=native", "-ffp-contract=off", "-fPIC", "-pthread")
KINDS = (
    *("load", "store", "convolve", "depthwise", "max_pool", "average_pool", "add", "multiply", "copy"),
    *("pick", "blend", "shuffle", "spread"),
)
"""Kinds of steps in the order of `functions` in run.c."""
NO_DOT_PRODUCTS = "this processor has no 8-bit dot products (VNNI)"
SLACK = 128
"""Bytes behind an arena: vectors are read whole, also the last one."""


class Map(ctypes.Structure):
    """`Map` of program.h: where a map lies in an arena."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in ("at", "image", "row", "pixel", "h", "w", "c", "left", "right", "top", "bottom")
    )


def _members(names: str, kind: type) -> list[tuple[str, type]]:
    return [(name, kind) for name in names.split()]


class Step(ctypes.Structure):
    """`Step` of program.h."""

    _fields_ = (
        *_members("kind count", ctypes.c_int64),
        *_members("inputs", ctypes.c_void_p),
        *_members("output external constant", ctypes.c_int64),
        *_members(
            "kernel_h kernel_w stride_h stride_w dilation_h dilation_w pad_top pad_left", ctypes.c_int64
        ),
        *_members("taps", ctypes.c_void_p),
        *_members("tap_count quads", ctypes.c_int64),
        *_members("weights offset bias shifts rows columns", ctypes.c_void_p),
        *_members("upper_rows upper_columns factors row_shares column_shares table", ctypes.c_void_p),
        *_members("leaky fraction shift low high multiplier paired at_once parts run", ctypes.c_int64),
    )


class Ticket(ctypes.Structure):
    """`Ticket` of run.h: a part of a step of an image that workers do together."""

    _fields_ = _members("step part needed", ctypes.c_int64)


class Run(ctypes.Structure):
    """`Run` of run.h: one call."""

    _fields_ = (
        *_members("maps steps", ctypes.c_void_p),
        *_members("map_count count", ctypes.c_int64),
        *_members("shared tickets", ctypes.c_void_p),
        *_members("ticket_count n block together workers", ctypes.c_int64),
        *_members("sources targets arenas held", ctypes.c_void_p),
        *_members("next", ctypes.c_int64),
    )


HELD_BYTES = 64
"""Of `Held` of run.h, one for each worker."""


def array_of(kind: type[ctypes.Structure], members: Sequence[ctypes.Structure]) -> Any:
    """C array of structures."""
    return (kind * len(members))(*members)


def arena(size: int) -> np.ndarray:
    """Room for maps of `size` bytes; vectors that are read whole may reach over both ends."""
    return aligned((size + 2 * SLACK,), np.uint8)[SLACK:]


def addresses(arrays: Sequence[np.ndarray]) -> Any:
    """C array of the arrays' addresses."""
    return (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))


def lanes() -> int:
    """32-bit numbers in a vector of the compiled kernels."""
    return int(loaded().lanes())


def longest_run() -> int:
    """Pixels of a row that a convolution computes together, at most."""
    return int(loaded().longest_run())


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels (ctypes.CDLL), or None where they cannot be had.

    UserError for a DPUFLOW_EMULATOR that is not known.
    """
    wanted = os.environ.get("DPUFLOW_EMULATOR", "")
    if wanted == "numpy":
        _missing("the environment has DPUFLOW_EMULATOR=numpy")
        return None
    if wanted:
        raise UserError(
            f"the environment has DPUFLOW_EMULATOR={wanted!r}; "
            'expected "numpy", or nothing for the compiled kernels'
        )
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        _missing("there is no C compiler (cc, gcc or clang): install one, or name it in CC")
        return None
    name = f"kernels-{_fingerprint(compiler)}.so"
    try:
        kernels: ctypes.CDLL | None = _from_cache(compiler, name)
    except (OSError, RuntimeError):  # no home folder, or it is read-only or full
        kernels = _without_cache(compiler, name)
    except subprocess.SubprocessError as error:
        _missing(_reason(compiler, error))
        return None
    if kernels is not None and _instructions(kernels) == "AVX2":
        log.info("the emulator runs on AVX2, 4 to 6 times slower than with AVX512-VNNI: %s", NO_DOT_PRODUCTS)
    return kernels


def _missing(reason: str) -> None:
    """Say what is slow, and why; once, as `library` asks once."""
    log.warning(
        "warning: the emulator runs on NumPy, 2 to 4 times slower than with AVX2 and 10 to 20 times slower "
        "than with AVX512-VNNI, with the same results: %s",
        reason,
    )


def _reason(compiler: str, error: Exception) -> str:
    text = (getattr(error, "stderr", None) or b"").decode(errors="replace")
    if "neither VNNI nor AVX2" in text:
        return "this processor has no AVX2"
    told = next((line for line in text.splitlines() if "error" in line), str(error))
    return f"{compiler} cannot compile its kernels: {told.strip()}"


def instructions() -> str:
    """What the compiled kernels multiply with: "AVX512-VNNI", "AVX-VNNI" or "AVX2"."""
    return _instructions(loaded())


def _instructions(kernels: ctypes.CDLL) -> str:
    name = kernels.instructions
    name.restype = ctypes.c_char_p
    return str(name().decode())


def loaded() -> ctypes.CDLL:
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
    except (OSError, subprocess.SubprocessError) as error:
        _missing(_reason(compiler, error))
        return None


def _fingerprint(compiler: str) -> str:
    """Changes with the source, the flags and the processor (-march=native)."""
    digest = hashlib.sha256(" ".join((compiler, *FLAGS)).encode())
    for name in (*HEADERS, *SOURCES):
        digest.update((FOLDER / name).read_bytes())
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            digest.update(next((line for line in stream if line.startswith("flags")), "").encode())
    except OSError:
        pass
    return digest.hexdigest()[:16]


def _compile(compiler: str, path: Path) -> Path:
    """Each source on its own, side by side, then all joined."""

    def run(*arguments: str) -> None:
        command = [*shlex.split(compiler), *FLAGS, *arguments]
        subprocess.run(command, check=True, capture_output=True, timeout=900)

    objects = [str(path.with_name(f"{name}.o")) for name in SOURCES]
    with ThreadPoolExecutor() as pool:
        sources = [str(FOLDER / name) for name in SOURCES]
        list(pool.map(lambda source, made: run("-c", source, "-o", made), sources, objects))
    run("-shared", *objects, "-o", str(path))
    return path
