"""Settings of the `reference` quantizer: defaults, names, checks."""

import copy
from collections.abc import Mapping
from typing import Any

from dpuflow.base.errors import UserError
from dpuflow.base.hints import did_you_mean

Settings = dict[str, Any]
"""All settings of the quantizer, as `complete` gives them."""

DEFAULTS: Settings = {
    "method": "min_diffs",
    "compat": None,
    "calibration": {"images": None, "batch": 32},
    "batch_norm_after_activation": "fold",
    "equalization": {"sweeps": 10},
    "position_search": {"criterion": "output_error", "images": 256, "sweeps": 2},
    "bias_correction": False,
    "fast_finetune": {"rows": 4000, "sweeps": 3, "reach": 3, "ridge": 0.1},
    "diagnosis": True,
}
"""Every setting and its default; config/schemas/quantizer_reference.schema.yaml describes them."""

SWITCHABLE = ("equalization", "fast_finetune")
"""Groups that may be false (off) or true (on, with the defaults)."""

CHOICES = {
    "method": ("non_overflow", "min_diffs"),
    "compat": (None, "vai_q"),
    "batch_norm_after_activation": ("fold", "depthwise"),
    "position_search.criterion": (None, "output_error", "logit_error"),
    "bias_correction": (False, True),
    "diagnosis": (False, True),
}
COUNTS = (
    "calibration.images",
    "calibration.batch",
    "equalization.sweeps",
    "position_search.images",
    "position_search.sweeps",
    "fast_finetune.rows",
    "fast_finetune.sweeps",
    "fast_finetune.reach",
)
_YAML_WORDS: dict[Any, str] = {None: "null", True: "true", False: "false"}
NOT_FOR_COMPAT = ("position_search", "bias_correction", "fast_finetune")


def complete(settings: Mapping[str, Any] | None) -> Settings:
    """Fill in defaults; UserError names an unknown key or value and what is valid.

    Under `compat: vai_q` everything that the vendor's tool does not do is off unless given
    (and then an error), and equalization is off unless given.
    """
    given = settings or {}
    merged = _merge(DEFAULTS, given, "")
    for path, allowed in CHOICES.items():
        value = _get(merged, path)
        if not any(value is option or (isinstance(value, str) and value == option) for option in allowed):
            named = ", ".join(_YAML_WORDS.get(option, str(option)) for option in allowed)
            raise UserError(f"quantizer setting {path}: {value!r}; expected one of {named}")
    for path in COUNTS:
        value = _get(merged, path)
        if value is None or value is False:  # calibration.images: all of the split; group off
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"quantizer setting {path}: {value!r}; expected a whole number of at least 1")
    ridge = _get(merged, "fast_finetune.ridge")
    if ridge is not False and (isinstance(ridge, bool) or not isinstance(ridge, int | float) or ridge < 0):
        raise UserError(f"quantizer setting fast_finetune.ridge: {ridge!r}; expected a number of at least 0")
    return _for_compat(merged, given) if merged["compat"] else merged


def steps(settings: Mapping[str, Any]) -> str:
    """The steps that settings switch on, in their order, in words for a job's message."""
    full = complete({key: value for key, value in settings.items() if key != "tool"})
    criterion = full["position_search"]["criterion"] if full["position_search"] else None
    named: dict[Any, Any] = {
        full["method"]: True,
        f"compat {full['compat']}": full["compat"],
        "equalization": full["equalization"],
        criterion: criterion,
        "bias_correction": full["bias_correction"],
        "fast_finetune": full["fast_finetune"],
    }
    return ", ".join(name for name, on in named.items() if on)


def _for_compat(merged: Settings, given: Mapping[str, Any]) -> Settings:
    wanted = {"position_search": (given.get("position_search") or {}).get("criterion")} | {
        key: given.get(key) for key in ("bias_correction", "fast_finetune")
    }
    for key in NOT_FOR_COMPAT:
        if wanted[key]:
            raise UserError(
                f"quantizer setting {key}: the vendor's tool has no such step; drop it or compat: vai_q"
            )
    if not given.get("equalization"):
        merged["equalization"] = False
    merged["position_search"]["criterion"] = None
    merged["bias_correction"] = merged["fast_finetune"] = False
    merged["batch_norm_after_activation"] = "depthwise"
    return merged


def _get(settings: Any, path: str) -> Any:
    for key in path.split("."):
        settings = settings[key]
        if settings is False:
            return False
    return settings


def _merge(defaults, given, prefix):
    if not isinstance(given, dict):
        raise UserError(
            f"quantizer setting {prefix.rstrip('.') or '(all)'}: expected keys and values, got {given!r}"
        )
    merged = copy.deepcopy(defaults)
    for key, value in given.items():
        if key not in defaults:
            raise UserError(f"quantizer setting {prefix}{key}: unknown; {did_you_mean(key, defaults)}")
        if key in SWITCHABLE and isinstance(value, bool):
            merged[key] = merged[key] if value else False
        elif isinstance(defaults[key], dict):
            merged[key] = _merge(defaults[key], value, f"{prefix}{key}.")
        else:
            merged[key] = copy.deepcopy(value)
    return merged
