"""Inline SVG as strings: themable by the page's CSS, a tenth of matplotlib's bytes, the same every time."""

import math
from collections.abc import Iterable

from markupsafe import Markup, escape


def number(value: float) -> str:
    """A coordinate with at most two decimals and no trailing zeros."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def element(name: str, *children: str, **attributes: str | float | None) -> Markup:
    """An SVG element. Attributes: `class_` -> class, `text_anchor` -> text-anchor, None drops it."""
    parts = [name]
    for key, value in attributes.items():
        if value is None:
            continue
        text = number(value) if isinstance(value, (int, float)) else value
        parts.append(f'{_attribute_name(key)}="{escape(text)}"')
    opening = " ".join(parts)
    if not children:
        return Markup(f"<{opening}/>")
    return Markup(f"<{opening}>{''.join(escape(child) for child in children)}</{name}>")


def _attribute_name(key: str) -> str:
    if key in ("viewBox", "preserveAspectRatio", "textLength", "lengthAdjust"):
        return key
    return key.rstrip("_").replace("_", "-")


def drawing(
    width: float, height: float, label: str, children: Iterable[str], class_: str = "figure"
) -> Markup:
    """The svg element itself: scales with its container, and `label` is read out in its stead."""
    return element(
        "svg",
        *children,
        class_=class_,
        viewBox=f"0 0 {number(width)} {number(height)}",
        role="img",
        aria_label=label,
    )


def ticks(low: float, high: float, wanted: int = 6) -> list[float]:
    """Some `wanted` round axis values (1, 2, 5 times a power of ten) in [low, high]."""
    if not high > low:
        return [low]
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 times powers of ten in [low, high] (few when the span is wide); low > 0."""
    decades = math.log10(high / low)
    factors = (1,) if decades > 3 else (1, 3) if decades > 1.5 else (1, 2, 5)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [f * 10.0**p for p in powers for f in factors if low <= f * 10.0**p <= high * (1 + 1e-9)]
