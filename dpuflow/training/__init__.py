"""From a layer list to a trained legacy-Keras H5 file."""

from typing import Any

Entry = str | dict[str, Any]
"""A layer of the list: its kind, alone or with its options ({kind: options})."""
