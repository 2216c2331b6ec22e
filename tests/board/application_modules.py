"""The board application's modules, imported here; dpuflow itself only copies them."""

import importlib
import sys

from dpuflow.board import application


def module(name):
    """A module of the application by its name: "cpu_ops"."""
    sys.path.insert(0, str(application.FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(application.FOLDER))
