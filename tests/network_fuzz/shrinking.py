"""The smallest recipe that still fails in the same way."""

import time
from dataclasses import replace

PLAIN_VALUES = {
    "kernel": [[1, 1], [2, 2], [3, 3]],
    "stride": [[1, 1], [2, 2]],
    "dilation": [[1, 1]],
    "pad": [[0, 0, 0, 0]],
    "units": [1, 2, 4],
    "bias": [False],
    "spread": [0.0],
    "size": [1.0],
    "op": ["relu"],
    "swapped": [False],
    "negative": [False],
    "which": [0, 1],
    "others": [[0, 0], [1, 1]],
    "factor": [[1, 1], [2, 2]],
    "scale": [2],
}
"""What a step's parameter becomes if it still fails so, the simplest first."""


def smaller(recipe):
    """Simpler recipes, the boldest changes first."""
    for step in reversed(recipe.steps):
        yield recipe.without(step["number"])
    if recipe.ends:
        yield replace(recipe, ends=[])
    for name, value in (("setting", 0), ("scaling", 0), ("on_cpu", True)):
        if getattr(recipe, name) != value:
            yield replace(recipe, **{name: value})
    for axis, size in enumerate(recipe.shape):
        for other in (1, size // 2, size - 1):
            if 0 < other < size:
                yield replace(
                    recipe, shape=tuple(other if i == axis else n for i, n in enumerate(recipe.shape))
                )
    for at, step in enumerate(recipe.steps):
        for changed in _simpler(step):
            yield replace(recipe, steps=[*recipe.steps[:at], changed, *recipe.steps[at + 1 :]])


def _simpler(step):
    for key, options in PLAIN_VALUES.items():
        for option in options:
            if key not in step or step[key] == option:
                break
            if key != "op" or step["kind"] == "activation":
                yield {**step, key: option}
    if isinstance(step.get("pad"), list):
        for side, pad in enumerate(step["pad"]):
            if pad:
                yield {**step, "pad": [0 if i == side else p for i, p in enumerate(step["pad"])]}


def shrink(recipe, fails, seconds=120):
    """The smallest recipe found for which `fails(recipe)` holds, as it does for the given one."""
    end = time.monotonic() + seconds
    again = True
    while again:
        again = False
        for other in smaller(recipe):
            if time.monotonic() > end:
                return recipe
            if fails(other):
                recipe, again = other, True
                break
    return recipe
