"""What zipfile raises on missing and damaged archives, as UserErrors."""

import errno
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dpuflow.base.errors import UserError

_DAMAGE = (zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error)
"""What zipfile lets through from the decompressors and from its own reading of damaged headers."""


@contextmanager
def errors_of_zip(archive: Path) -> Iterator[None]:
    """UserError that names the archive for whatever is wrong with it in the block."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{archive}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{archive}: a folder, expected a zip file") from None
    except (zipfile.BadZipFile, *_DAMAGE, OSError) as error:
        # bz2 raises an OSError without a number, a seek to nowhere EINVAL; others are the machine's
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise UserError(f"{archive}: damaged or unreadable zip file ({error}); obtain it again") from None
