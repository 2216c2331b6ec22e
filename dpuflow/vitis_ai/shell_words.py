"""Options of the vendor's tools as words of a shell command. Free of NumPy: Snakemake asks at each start."""

import shlex
from collections.abc import Mapping
from typing import Any


def option_words(options: Mapping[str, Any]) -> str:
    """{"method": 1} -> "--method 1", each word quoted for the shell, in the order of the names."""
    words = [word for name in sorted(options) for word in (f"--{name}", str(options[name]))]
    return " ".join(shlex.quote(word) for word in words)
