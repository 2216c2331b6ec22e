"""Numbers as the report writes them."""

from collections.abc import Sequence
from typing import Any

MISSING = "–"
SPACE = "\N{NO-BREAK SPACE}"
"""Between a number and its unit, so that no line breaks there."""


def percent(value: float | None, digits: int = 2) -> str:
    """0.9972 -> "99.72 %". 1 is written only when it is exactly 1, never by rounding up."""
    if value is None:
        return MISSING
    return f"{fraction(value, digits)}{SPACE}%"


def fraction(value: float, digits: int = 2) -> str:
    """0.9972 -> "99.72": a percentage without its sign."""
    text = f"{value * 100:.{digits}f}"
    if value < 1 and float(text) >= 100:
        # one error in 100,000 must not read as perfection
        return f"{100 - 10**-digits:.{digits}f}"
    return text


def interval(bounds: Sequence[float] | None, digits: int = 2) -> str:
    """[0.9957, 0.9982] -> "99.57–99.82 %"."""
    if bounds is None:
        return MISSING
    return f"{fraction(bounds[0], digits)}–{fraction(bounds[1], digits)}{SPACE}%"


def points(value: float | None, digits: int = 2) -> str:
    """A change of accuracy in percentage points with its sign: -0.0014 -> "−0.14 pp"."""
    if value is None:
        return MISSING
    text = f"{abs(value) * 100:.{digits}f}"
    sign = "±" if float(text) == 0 else "−" if value < 0 else "+"
    return f"{sign}{text}{SPACE}pp"


def count(value: int | None) -> str:
    """7172 -> "7,172"."""
    return MISSING if value is None else f"{value:,}"


def size(value: int | None) -> str:
    """Bytes in decimal units: 4730000 -> "4.73 MB"."""
    if value is None:
        return MISSING
    if value < 1000:
        return f"{value}{SPACE}B"
    power = 1 if value < 999_500 else 2 if value < 999_500_000 else 3
    return f"{value / 1000**power:.3g}{SPACE}{('kB', 'MB', 'GB')[power - 1]}"


def operations(value: float | None) -> str:
    """Operations per frame: 12659072 -> "12.7 MOP"."""
    if value is None:
        return MISSING
    power = 2 if value < 999_500_000 else 3
    return f"{value / 1000**power:.3g}{SPACE}{('MOP', 'GOP')[power - 2]}"


def duration(microseconds: float | None) -> str:
    """184.2 -> "184 µs"; 2513.0 -> "2.51 ms"."""
    if microseconds is None:
        return MISSING
    if microseconds < 999.5:
        return f"{microseconds:.3g}{SPACE}µs"
    return f"{microseconds / 1000:.3g}{SPACE}ms"


def seconds(value: float | None) -> str:
    """12.34 -> "12 s"; 754 -> "12 min 34 s"."""
    if value is None:
        return MISSING
    minutes, rest = divmod(round(value), 60)
    return f"{minutes:,}{SPACE}min {rest}{SPACE}s" if minutes else f"{rest}{SPACE}s"


def real(value: object, digits: int = 4) -> str:
    """A float with `digits` significant figures: 0.00123456 -> "0.001235"."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if value == int(value) and abs(value) < 1e15:
        text = f"{int(value):,}"
    elif abs(value) >= 10 ** (digits - 1):
        text = f"{value:,.0f}"
    else:
        text = f"{value:.{digits}g}"
    return text.replace("-", "−")


def p_value(value: float | None) -> str:
    """McNemar's p for a table cell."""
    if value is None:
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


FACT_UNITS = {"_mhz": "MHz", "_w": "W", "_mj": "mJ"}
"""Ending of a key -> the unit that its value is written with."""


def fact_name(key: str) -> str:
    """A JSON key as a caption, without the unit that `fact_value` writes: "memory_us" -> "memory time"."""
    name = str(key)
    if name.endswith("_us"):
        name = name.removesuffix("_us") + ("" if name.endswith("latency_us") else "_time")
    name = name.removesuffix("_w") + ("_power" if name.endswith("_w") else "")
    for ending in ("_bytes", "_mhz", "_mj"):
        name = name.removesuffix(ending)
    return name.replace("_", " ")


def fact_value(key: str, value: Any) -> str:
    """A value of a JSON file with the unit that its key names."""
    if isinstance(value, (bool, str)):
        return real(value)
    if "utilisation" in key:
        return percent(value, 1)
    if key.startswith("workload"):
        return operations(value)
    if key.endswith("_bytes"):
        return size(value)
    if key.endswith("_us"):
        return duration(value)
    unit = next((unit for ending, unit in FACT_UNITS.items() if key.endswith(ending)), "")
    return real(value) + (f"{SPACE}{unit}" if unit else "")
