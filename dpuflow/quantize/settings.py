"""Settings of the `reference` quantizer: defaults, names, checks."""

import copy
import difflib

from dpuflow.errors import UserError

DEFAULTS = {
    "method": "min_diffs",
    "compat": None,
    "calibration": {"images": None, "batch": 32},
    "batch_norm_after_activation": "fold",
}
"""Every setting and its default; config/schemas/quantizer_reference.schema.yaml describes them."""

CHOICES = {
    "method": ("non_overflow", "min_diffs"),
    "compat": (None, "vai_q"),
    "batch_norm_after_activation": ("fold", "depthwise"),
}


def complete(settings):
    """Fill in defaults; UserError names an unknown key or value and the nearest valid one."""
    merged = _merge(DEFAULTS, settings or {}, "")
    for key, allowed in CHOICES.items():
        if merged[key] not in allowed:
            named = ", ".join("null" if value is None else str(value) for value in allowed)
            raise UserError(f"quantizer setting {key}: {merged[key]!r}; expected one of {named}")
    for key in ("images", "batch"):
        value = merged["calibration"][key]
        if key == "images" and value is None:  # all of the dataset's calibration split
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(
                f"quantizer setting calibration.{key}: {value!r}; expected a whole number of at least 1"
            )
    return merged


def _merge(defaults, given, prefix):
    if not isinstance(given, dict):
        raise UserError(
            f"quantizer setting {prefix.rstrip('.') or '(all)'}: expected keys and values, got {given!r}"
        )
    merged = copy.deepcopy(defaults)
    for key, value in given.items():
        if key not in defaults:
            near = difflib.get_close_matches(str(key), defaults, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"quantizer setting {prefix}{key}: unknown{hint} Known: {', '.join(defaults)}")
        nested = isinstance(defaults[key], dict)
        merged[key] = _merge(defaults[key], value, f"{prefix}{key}.") if nested else copy.deepcopy(value)
    return merged
