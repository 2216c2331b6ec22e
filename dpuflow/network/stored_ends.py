"""Which layers give a network's outputs, in the files of networks."""

import json
from typing import Any

import h5py

from dpuflow.base.files import parse_json
from dpuflow.network import Network


def store_ends(file: h5py.File, network: Network) -> None:
    """The attribute `outputs`, [[output's name, layer], ...], where the layers alone do not tell."""
    if network.ends:
        file.attrs["outputs"] = json.dumps(list(network.ends.items()))


def stored_ends(file: h5py.File) -> dict[str, str]:
    """`Network.ends` as `store_ends` wrote them; TypeError or ValueError when they are anything else."""
    text = file.attrs.get("outputs", "[]")
    pairs: Any = parse_json(text) if isinstance(text, str) else None
    texts = isinstance(pairs, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(name, str) and name for name in pair)
        for pair in pairs
    )
    if not texts or len(dict(pairs)) != len(pairs):
        raise ValueError(f"attribute outputs {text!r}: expected [[name, layer], ...], each name once")
    return dict(pairs)
