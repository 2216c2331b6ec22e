"""Does the configuration fit together: tools, releases, targets? Asked before any job starts."""

from collections.abc import Mapping
from typing import Any

from dpuflow.base.errors import UserError
from dpuflow.device.targets import configured_target, describe_fingerprint
from dpuflow.vitis_ai import releases

OWN = "reference"


def problems(config: Mapping[str, Any]) -> list[str]:
    """Sentences, each with its key, about quantizers, targets and runs that cannot work together."""
    found = []
    found += _images(config.get("vitis_ai", {}).get("images", {}))
    found += _quantizers(config["quantizers"])
    found += _targets(config["targets"])
    return found or list(_runs(config))


def _images(images):
    for name, by_framework in images.items():
        try:
            releases.release(name)
        except UserError as error:
            yield f"vitis_ai.images: {error}"
        for framework in by_framework:
            if framework not in releases.matrix()["environments"]:
                known = ", ".join(releases.matrix()["environments"])
                yield f"vitis_ai.images.{name}: {framework!r} is no framework; expected one of {known}"


def _quantizers(quantizers):
    for name, entry in quantizers.items():
        tool = entry["tool"]
        if tool not in releases.matrix()["tools"]:
            continue
        try:
            releases.release(entry["release"])
        except UserError as error:
            yield f"quantizers.{name}.release: {error}"
            continue
        for problem in releases.option_problems(tool, entry["release"], entry.get("options", {})):
            yield f"quantizers.{name}.options.{problem}"


def _targets(targets):
    for name, entry in targets.items():
        compiler = entry.get("compiler", OWN)
        options = entry.get("compiler_options", {})
        if compiler not in releases.matrix()["tools"]:
            if options:
                yield f"targets.{name}.compiler_options: {compiler} has none, only vendor compilers have"
            continue
        try:
            target = configured_target(name, _hardware(entry))
            releases.release(target.release)
        except UserError as error:
            yield str(error)
            continue
        for problem in releases.option_problems(compiler, target.release, options):
            yield f"targets.{name}.compiler_options.{problem}"


def _hardware(entry):
    return {key: entry[key] for key in ("dpu", "release", "board") if key in entry}


def _runs(config):
    """Quantizer and target of each run: does the compiler read what the quantizer writes, in one release?"""
    tools = releases.matrix()["tools"]
    for index, run in enumerate(config["runs"]):
        for quantizer in _as_list(run["quantizer"]):
            for target in _as_list(run["target"]):
                where = f"runs[{index}]: quantizer {quantizer} with target {target}"
                q_entry, t_entry = config["quantizers"][quantizer], config["targets"][target]
                compiler = t_entry.get("compiler", OWN)
                takes = tools[compiler]["takes"] if compiler in tools else OWN
                tool = q_entry["tool"] if q_entry["tool"] in tools else OWN
                if tool != takes:
                    yield (
                        f"{where}: compiler {compiler} takes the output of {takes}, not of {tool}; "
                        f"{_advice(config, tool, takes)}"
                    )
                elif compiler in tools and takes != OWN:
                    yield from _skew(where, q_entry["release"], target, t_entry)
        yield from _boards(config, index, run)


def _skew(where, container, name, entry):
    target = configured_target(name, _hardware(entry))
    if container != target.release:
        same = target.fingerprints.get(container) == target.fingerprint
        why = (
            "the runtime on the board is of another release"
            if same
            else f"the board's DPU has fingerprint {target.fingerprint:#x}, the container compiles for "
            f"{target.fingerprints.get(container, 0):#x}"
        )
        yield (
            f"{where}: the containers are of release {container}, the board image of {target.release} "
            f"({why}); give both the same release"
        )


def _boards(config, index, run):
    """A board whose fingerprint the configuration states must be the one that its runs compile for."""
    for runner in _as_list(run["runner"]):
        for number, board in enumerate(config["runners"][runner].get("boards", [])):
            if "fingerprint" not in board:
                continue  # it is asked when the job starts
            for name in _as_list(run["target"]):
                target = configured_target(name, _hardware(config["targets"][name]))
                stated = int(board["fingerprint"], 16)
                if stated != target.fingerprint:
                    known = describe_fingerprint(stated) or "no DPU that dpuflow knows"
                    yield (
                        f"runs[{index}]: target {name} is {target.fingerprint:#x} ({target.dpu}, "
                        f"release {target.release}), but runners.{runner}.boards[{number}].fingerprint is "
                        f"{stated:#x} ({known}); give the target the board's dpu and release"
                    )


def _advice(config, tool, takes):
    """What to write instead: a compiler that reads this quantizer, or a quantizer for this compiler."""
    compilers = [name for name, row in releases.matrix()["tools"].items() if row.get("takes") == tool]
    if tool == OWN:
        compilers = ["reference", "native", *compilers]
    fitting = [name for name, entry in config["quantizers"].items() if entry["tool"] == takes]
    other = f" or pair the target with the quantizer {fitting[0]} in a run of its own" if fitting else ""
    return f"give the target compiler: {' or '.join(compilers)}{other}"


def _as_list(value):
    return value if isinstance(value, list) else [value]
