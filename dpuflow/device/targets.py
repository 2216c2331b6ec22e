"""DPU targets: size, parallelism, banks, limits, fingerprint, board.

`targets.yaml` beside this module holds a family's parameters once and a row per size; everything
else of a target is derived here (docs/reference/targets.md). A target
is named by an entry under `targets` of the configuration, by a board ("zcu104") or by
its DPU ("DPUCZDX8G_ISA1_B4096": newest release, no board).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from dpuflow.base.errors import UserError
from dpuflow.base.hints import did_you_mean

TARGETS_FILE = Path(__file__).with_name("targets.yaml")
BOARD_KEYS = ("name", "cores", "clock_mhz", "memory_gb_s")
"""The last one may be left out."""


@dataclass(frozen=True)
class Bank:
    """A group of on-chip memory banks: `count` banks of `depth` entries of `width` bytes."""

    count: int
    width: int
    depth: int

    @property
    def size(self) -> int:
        """Bytes of the whole group."""
        return self.count * self.width * self.depth


@dataclass(frozen=True)
class Board:
    """A board as its image configures it: number of DPU cores and their clock.

    memory_gb_s : GB/s of its DDR at best, width times transfers per second; None where nobody says it.
    """

    name: str
    cores: int
    clock_mhz: float
    memory_gb_s: float | None = None


@dataclass(frozen=True)
class Limits:
    """What one instruction of a DPU can do; ranges are (least, greatest), inclusive.

    conv_*: the convolution array (also dense layers). alu_*: pooling and depthwise
    convolution. alu_pad: greatest (left, right, top, bottom). channels: greatest
    number of input and of output channels, and of dilation * input channels.
    weight_entries: greatest kernel_w * kernel_h * ceil(input channels / parallelism).
    """

    conv_kernel: tuple[int, int]
    conv_stride: tuple[int, int]
    alu_kernel: tuple[int, int]
    alu_stride: tuple[int, int]
    alu_pad: tuple[int, int, int, int]
    channels: int
    weight_entries: int
    conv_activations: tuple[str, ...]
    depthwise_activations: tuple[str, ...]
    eltwise: tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """One target.

    Attributes
    ----------
    name : "zcu104", or the DPU's name when no board is meant.
    dpu : "DPUCZDX8G_ISA1_B4096", as in `dpu_name` of an xmodel and in arch.json.
    release : Vitis AI release of the board image, a key of `fingerprints`.
    fingerprints : release -> 64-bit fingerprint.
    other_fingerprints : release -> fingerprint of the same size with the `alu_pixel_parallel` of the
        other releases; only to name what a file says.
    pixel_parallel, input_channel_parallel, output_channel_parallel : the convolution array.
    alu_pixel_parallel : pixels per cycle of pooling, depthwise and elementwise work, of this release.
    channel_augmentation : greatest kernel_w * input channels that the first layer may
        fold together, 2 * input_channel_parallel.
    banks : "image" (one group of `image_groups`), "weights", "depthwise", "bias".
    board : Board or None.
    """

    name: str
    dpu: str
    dpu_type: str
    isa: int
    size: str
    release: str
    fingerprints: Mapping[str, int]
    other_fingerprints: Mapping[str, int]
    pixel_parallel: int
    input_channel_parallel: int
    output_channel_parallel: int
    alu_pixel_parallel: int
    image_groups: int
    channel_augmentation: int
    banks: Mapping[str, Bank]
    limits: Limits
    board: Board | None = None

    @property
    def fingerprint(self) -> int:
        """The 64-bit fingerprint of this target's release."""
        return self.fingerprints[self.release]

    @property
    def peak_operations(self) -> int:
        """Operations per cycle and core: 2 * pixel * input * output parallelism."""
        return 2 * self.pixel_parallel * self.input_channel_parallel * self.output_channel_parallel

    @property
    def arch_json(self) -> dict[str, str]:
        """Content of the arch.json that the vendor's compiler takes for this target."""
        return {"fingerprint": hex(self.fingerprint)}


def load_targets(
    path: Path | str = TARGETS_FILE, extra: Mapping[str, Any] | None = None
) -> dict[str, Target]:
    """All targets of a targets file: {name: Target}.

    `extra` is the section `targets` of the configuration, {name: {dpu, release, board}}
    (other keys, such as `compiler`, are not this module's); its entries win over boards
    of the same name. Raises UserError for one that names an unknown DPU, release or board.
    """
    data = _published() if path == TARGETS_FILE else _read(Path(path))
    dpus = {}
    for family_name, family in data["families"].items():
        for size in family["sizes"]:
            target = _dpu(family_name, family, size)
            dpus[target.name] = target
    targets = dict(dpus)
    boards = data.get("boards") or {}
    for name, entry in boards.items():
        own = {key: value for key, value in entry.items() if key not in ("dpu", "release")}
        targets[name] = _named(f"{path}: {name}", name, {**entry, "board": own}, dpus, boards)
    for name, entry in (extra or {}).items():
        targets[name] = _named(f"targets.{name}", name, entry, dpus, boards)
    return targets


def configured_target(name: str, hardware: Any) -> Target:
    """The Target of an entry {dpu, release, board} under `targets` of the configuration."""
    return load_targets(extra={name: hardware})[name]


def size_of(family: str, fingerprint: int) -> tuple[str, dict[str, int]] | None:
    """(name, row) of the size in the family `family` of targets.yaml that a fingerprint means, or None."""
    data = _published()["families"][family]
    if (fingerprint >> 56, fingerprint >> 48 & 0xFF) != (data["type"]["id"], data["isa"]):
        return None
    rows = data["sizes"].items()
    return next(((name, row) for name, row in rows if row["code"] == fingerprint & 0xF), None)


def bank_depth(family: str) -> int:
    """Entries of one on-chip bank of the family's DPUs."""
    return _published()["families"][family]["bank_depth"]


def get_target(name: str, targets: Mapping[str, Target] | None = None) -> Target:
    """The Target called `name`; UserError lists the nearest names when there is none."""
    targets = load_targets() if targets is None else targets
    if name in targets:
        return targets[name]
    raise UserError(f"target {name!r} is unknown; {did_you_mean(name, targets, 3)}")


def describe_fingerprint(fingerprint: int, targets: Mapping[str, Target] | None = None) -> str | None:
    """Which DPU and releases a fingerprint belongs to, in words; None for an unknown one.

    DPUs that are no target are named by type and instruction set: "DPUCVDX8G, instruction set ISA3".
    """
    targets = load_targets() if targets is None else targets
    for target in targets.values():
        releases = [release for release, value in target.fingerprints.items() if value == fingerprint]
        if releases and target.name == target.dpu:
            return f"{target.dpu}, release {' or '.join(releases)}"
        releases = [release for release, value in target.other_fingerprints.items() if value == fingerprint]
        if releases and target.name == target.dpu:
            pixels = _alu_pixels(fingerprint)
            return f"{target.dpu}, release {' or '.join(releases)}, built with {pixels} ALU pixels"
    name = _type_names().get(fingerprint >> 56)
    return name and f"{name}, instruction set ISA{fingerprint >> 48 & 0xFF}"


def _type_names():
    """Type number of a fingerprint -> name of the DPU's type."""
    data = _published()
    own = {family["type"]["id"]: family["type"]["name"] for family in data["families"].values()}
    return own | data["other_types"]


@cache
def _published():
    """Content of our own targets file; not to be changed."""
    return _read(TARGETS_FILE)


def _read(path):
    """Content of a targets file."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML ({error})") from None
    if not isinstance(data, dict) or not isinstance(data.get("families"), dict):
        raise UserError(f"{path}: expected the keys `families` and `boards`")
    return data


def _dpu(family_name, family, size):
    """A Target for one size of a family, without a board."""
    row, conv, alu = family["sizes"][size], family["conv"], family["alu"]
    channel, depth = row["channel"], family["bank_depth"]
    prefix = family["type"]["id"] << 56 | family["isa"] << 48

    def fingerprint(release: str, alu_pixel: int) -> int:
        return prefix | family["releases"][release] | alu_pixel << 8 | row["code"]

    usual, changed = row["alu_pixel"], row.get("alu_pixel_of", {})
    fingerprints = {
        release: fingerprint(release, changed.get(release, usual)) for release in family["releases"]
    }
    others = {release: fingerprint(release, usual) for release in changed}
    name = f"{family_name}_{size}"
    return Target(
        name=name,
        dpu=name,
        dpu_type=family["type"]["name"],
        isa=family["isa"],
        size=size,
        release=list(fingerprints)[-1],
        fingerprints=MappingProxyType(fingerprints),
        other_fingerprints=MappingProxyType(others),
        pixel_parallel=row["pixel"],
        input_channel_parallel=channel,
        output_channel_parallel=channel,
        alu_pixel_parallel=row["alu_pixel"],
        image_groups=family["image_groups"],
        channel_augmentation=2 * channel,
        banks=MappingProxyType(
            {
                "image": Bank(row["pixel"], channel, depth),
                "weights": Bank(channel, channel, depth),
                "depthwise": Bank(1, channel, depth),
                "bias": Bank(1, channel, depth),
            }
        ),
        limits=Limits(
            conv_kernel=tuple(conv["kernel"]),
            conv_stride=tuple(conv["stride"]),
            alu_kernel=tuple(alu["kernel"]),
            alu_stride=tuple(alu["stride"]),
            alu_pad=tuple(alu["pad"][side] for side in ("left", "right", "top", "bottom")),
            channels=256 * channel,
            weight_entries=depth,
            conv_activations=tuple(family["conv_activations"]),
            depthwise_activations=tuple(family["depthwise_activations"]),
            eltwise=tuple(family["eltwise"]),
        ),
    )


def _named(where, name, entry, dpus, boards):
    """A Target for an entry {dpu, release, board} of the configuration or of the boards."""
    board = entry.get("board") if isinstance(entry, dict) else None
    if isinstance(board, str):
        if board not in boards:
            raise UserError(f"{where}.board: {board!r} is unknown; {did_you_mean(board, boards, 3)}")
        entry = {**boards[board], **entry}
        board = {key: boards[board][key] for key in BOARD_KEYS if key in boards[board]}
    if not isinstance(entry, dict) or "dpu" not in entry:
        raise UserError(
            f"{where}: expected {{board: NAME}} or {{dpu: NAME, release: RELEASE, board: BOARD}}, "
            f"got {entry!r}"
        )
    if entry["dpu"] not in dpus:
        raise UserError(f"{where}.dpu: {entry['dpu']!r} is unknown; {did_you_mean(entry['dpu'], dpus, 3)}")
    base = dpus[entry["dpu"]]
    release = entry.get("release", base.release)
    if release not in base.fingerprints:
        raise UserError(
            f"{where}.release: {release!r} is unknown for {base.dpu}; write one of "
            + ", ".join(f'"{known}"' for known in base.fingerprints)
            + " (quoted, or YAML reads a number)"
        )
    if board is not None:
        board = _board(f"{where}.board", board)
    alu_pixels = _alu_pixels(base.fingerprints[release])
    return replace(base, name=name, release=release, alu_pixel_parallel=alu_pixels, board=board)


def _alu_pixels(fingerprint):
    """The ALU's pixel parallelism as a DPUCZDX8G's fingerprint says it."""
    return fingerprint >> 8 & 0xF


def _board(where, entry):
    if not isinstance(entry, dict):
        raise UserError(f"{where}: expected a board's name or {{name, cores, clock_mhz}}, got {entry!r}")
    for key in entry:
        if key not in BOARD_KEYS:
            raise UserError(f"{where}.{key}: unknown key; allowed: {', '.join(BOARD_KEYS)}")
    cores, clock = entry.get("cores"), entry.get("clock_mhz")
    if not isinstance(cores, int) or isinstance(cores, bool) or cores < 1:
        raise UserError(f"{where}.cores: must be a whole number of at least 1, got {cores!r}")
    if not isinstance(clock, int | float) or isinstance(clock, bool) or not 0 < clock < 2000:
        raise UserError(f"{where}.clock_mhz: must be a number of MHz, got {clock!r}")
    memory = entry.get("memory_gb_s")
    if memory is not None and (
        not isinstance(memory, int | float) or isinstance(memory, bool) or not 0 < memory < 1000
    ):
        raise UserError(f"{where}.memory_gb_s: must be a number of GB/s, got {memory!r}")
    memory = None if memory is None else float(memory)
    return Board(str(entry.get("name", "unnamed")), cores, float(clock), memory)
