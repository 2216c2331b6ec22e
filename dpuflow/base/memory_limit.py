"""A bound on the memory that a library may take while it reads somebody's file."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dpuflow.base.errors import UserError

HEADROOM = 2 << 30
"""Bytes: far more than reading a network for a DPU takes beyond its own size."""
COPIES = 8
"""How often a file's bytes may be in memory while it is read: parsed, rewritten, serialized, parsed again."""


@contextmanager
def bounded_memory(source: Path | str, size: int) -> Iterator[None]:
    """UserError about `source` where the block takes far more memory than `size` bytes of a file explain.

    For libraries that compute what a file asks for, however large it may be: the process's address space is
    limited meanwhile. A lower limit that holds already stays.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + COPIES * size + HEADROOM
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = min([limit, *(bound for bound in (soft, hard) if bound != resource.RLIM_INFINITY)])
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    except MemoryError:
        raise UserError(
            f"{source}: reading it takes more than {(COPIES * size + HEADROOM) >> 20} MiB of memory, though "
            f"the file holds {size >> 20} MiB: it makes something huge of constants or sizes, as no network "
            "for a DPU does"
        ) from None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
