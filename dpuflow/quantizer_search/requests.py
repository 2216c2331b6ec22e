"""The configuration's `quantizer_search`: which settings to compare, on which networks."""

import itertools
from collections.abc import Mapping
from typing import Any

from dpuflow.base.errors import UserError
from dpuflow.base.hints import no_entry
from dpuflow.quantizer_search.grid import DEFAULT_GRID, expand


def search_settings(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings to compare, in order (`grid.expand`)."""
    return expand(config.get("quantizer_search", {}).get("grid", DEFAULT_GRID))


def search_networks(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """[(data set, model)] to search for, a model's name with its seed, each once, in order."""
    search = config.get("quantizer_search", {})
    found: dict[tuple[str, str], None] = {}
    for run in config["runs"]:
        datasets = _as_list(search.get("dataset", run["dataset"]))
        models = _as_list(search.get("model", run["model"]))
        seeds = _as_list(search.get("seed", None if "model" in search else run.get("seed")))
        if "model" not in search:
            models = [model for model in models if _is_float(config, model)]
        for dataset, model, seed in itertools.product(datasets, models, seeds):
            found[dataset, model if seed is None else f"{model}-s{seed}"] = None
    return list(found)


def _is_float(config: Mapping[str, Any], model: str) -> bool:
    """Whether a model comes as a float network, of which alone something can be quantized."""
    return not {"quantized", "xmodel"} & config["models"].get(model, {}).keys()


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def search_problems(config: Mapping[str, Any]) -> list[str]:
    """What is wrong with `quantizer_search` beyond its schema, as messages."""
    search: Mapping[str, Any] = config.get("quantizer_search", {})
    messages = []
    for component, section in (("dataset", "datasets"), ("model", "models")):
        for name in _as_list(search.get(component, [])):
            if name not in config[section]:
                messages.append(f"quantizer_search.{component}: {no_entry(config, section, name)}")
    for name in _as_list(search.get("model", [])):
        if name in config["models"] and not _is_float(config, name):
            messages.append(
                f"quantizer_search.model: {name} does not come as a float network, so there is nothing to "
                "quantize; leave it out"
            )
    if "seed" in search and "model" not in search:
        messages.append("quantizer_search.seed: needs the key model, too")
    try:
        if not search_settings(config):
            messages.append("quantizer_search.grid: holds no setting; a key has an empty list")
    except UserError as error:
        messages.append(f"quantizer_search.grid: {error}")
    return messages
