"""HDF5 files of our own: written whole or not at all, with a seal that reading checks."""

from contextlib import contextmanager

import h5py

from dpuflow.errors import UserError
from dpuflow.files import atomic_path
from dpuflow.seal import check_file, seal_file


@contextmanager
def new_hdf5(path, format):
    """Yield a new h5py.File with the attribute `format`; after the block it gets its seal and its name."""
    with atomic_path(path) as temporary:
        with h5py.File(temporary, "w") as file:
            file.attrs["format"] = format
            yield file
        seal_file(temporary)


@contextmanager
def checked_hdf5(path, format):
    """Yield the h5py.File that `new_hdf5` wrote under this `format`.

    UserError when it is of another format or not as it was written; OSError as of h5py.
    """
    whole = check_file(path)
    with h5py.File(path, "r") as file:
        found = file.attrs.get("format")
        if not isinstance(found, str) or found != format:
            raise UserError(f"{path}: not a {format!r} file (its attribute format is {found!r})")
        if not whole:
            raise UserError(
                f"{path}: damaged: cut off, or changed after dpuflow wrote it (the checksum at its end is "
                "missing); remove it and run again"
            )
        yield file
