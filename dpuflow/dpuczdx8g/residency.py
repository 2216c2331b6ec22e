"""Which feature maps stay in the image banks: what the estimate by layers takes for granted."""

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

from dpuflow.compiler.workload import engine, factors_anew, map_shape, round_up
from dpuflow.device.targets import Target
from dpuflow.network import Layer, Network

GROUPS = 2
"""Groups of image banks; one map lies in one of them."""


def through_memory(network: Network, target: Target, kept: float) -> dict[str, float]:
    """Of the bytes of every feature map, by its layer's name, the part that is saved and loaded again.

    0 where each compiler keeps it: its only reader is the next layer that computes, and the maps of both
    fit a bank group each. 1 - `kept` where it fits beside all else that stays until its last reader (of a map
    that the next layer alone reads, some rows at a time). 1 for all others, for inputs and outputs.
    """
    readers, ends = _readers(network), _ends(network)
    certain = _certain(network, target, readers, ends)
    possible = _possible(network, target, readers, ends)
    parts = {layer.name: 1.0 - kept if layer.name in possible else 1.0 for layer in network.layers}
    return parts | dict.fromkeys(certain, 0.0)


def _ends(network: Network) -> set[str]:
    """Maps that outputs are made of, and so are in DDR in the end."""
    found = set()
    for layer in network.last_quantized:
        while layer.op == "flatten":
            layer = network[layer.inputs[0]]
        found.add(layer.name)
    return found


def _readers(network: Network) -> dict[str, list[Layer]]:
    """Who reads each map, also through a flatten, which copies nothing."""
    direct: dict[str, list[Layer]] = defaultdict(list)
    found: dict[str, list[Layer]] = {}
    for layer in network.layers:
        for name in dict.fromkeys(layer.inputs):
            direct[name].append(layer)
    for layer in reversed(network.layers):
        passed = [found[x.name] if x.op == "flatten" else [x] for x in direct[layer.name]]
        found[layer.name] = [reader for readers in passed for reader in readers]
    return found


def _stored(shape, target):
    """Bytes that a map takes in the image banks: channels padded to whole entries."""
    height, width, channels = map_shape(shape)
    return height * width * round_up(channels, target.input_channel_parallel)


def _certain(network, target, readers, ends):
    room, kept = target.banks["image"].size, set()
    for layer, following in pairwise([layer for layer in network.layers if layer.op != "flatten"]):
        if layer.name in ends or [reader.name for reader in readers[layer.name]] != [following.name]:
            continue
        if not (engine(network, layer) and engine(network, following)):
            continue
        if factors_anew(network, following, target):
            continue
        if max(_stored(layer.shape, target), _stored(following.shape, target)) <= room:
            kept.add(layer.name)
    return kept


@dataclass
class _Home:
    """A map, or a concat with all that is written into it: the layers from `first` to `last` need `size`."""

    first: int
    last: int
    size: int
    members: list[str]
    stays: bool = True


def _possible(network, target, readers, ends):
    layers = [layer for layer in network.layers if layer.op != "flatten"]
    order = {layer.name: number for number, layer in enumerate(layers)}
    homes: dict[str, _Home] = {}
    for layer in reversed(layers):  # readers first, so that a concat's home is there before its parts
        read_by = readers[layer.name]
        joined = next((reader.name for reader in read_by if reader.op == "concat"), None)
        number, stored = order[layer.name], _stored(layer.shape, target)
        if joined is None:
            home = homes[layer.name] = _Home(number, number, stored, [])
        else:
            home = homes[layer.name] = homes[joined]
        home.first = min(home.first, number)
        home.last = max([home.last, *(order[reader.name] for reader in read_by)])
        home.members.append(layer.name)
        home.stays &= layer.name not in ends and _stays(network, layer, read_by, target)
        if joined is None and layer.op != "concat" and home.last == number + 1:
            home.size = min(stored, _rows_at_a_time(layer, read_by, target))
    taken = [0] * (len(layers) + 1)
    room, possible = GROUPS * target.banks["image"].size, set()
    every = {id(home): home for home in homes.values() if home.stays}.values()
    for home in sorted(every, key=lambda home: (home.last - home.first, home.size, home.first)):
        span = range(home.first, home.last + 1)
        if all(taken[number] + home.size <= room for number in span):
            for number in span:
                taken[number] += home.size
            possible.update(home.members)
    return possible


def _stays(network, layer, read_by, target):
    """Whether an engine reads and writes it, in its own shape."""
    moved_only = any(not engine(network, x) and x.op != "concat" for x in (layer, *read_by))
    return bool(read_by) and not moved_only and not any(factors_anew(network, x, target) for x in read_by)


def _rows_at_a_time(layer, read_by, target):
    """Bytes of the rows that the one reader's window needs, and of two bands more."""
    rows = max(reader.attrs.get("kernel", (1, 1))[1] for reader in read_by) + 2 * target.pixel_parallel
    height, _, _ = map_shape(layer.shape)
    return ceil(_stored(layer.shape, target) / height) * rows
