"""Where the artifacts of a run lie, for the rules that collect them.

A run is anything with the attributes dataset, model, quantizer, target and runner
(`config.Run`, a rule's wildcards); settings is `config.Settings`.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from dpuflow.workflow import artifacts as made

if TYPE_CHECKING:
    from dpuflow.workflow.config import Settings

Names = Any
"""A run: anything with the attributes dataset, model, quantizer, target and runner."""

BOARDS = ("virtual_board", "ssh")
"""Kinds of runners that write a board's own record, and may dump its tensors."""

STAGES = {
    "keras": made.KERAS_ACCURACY,
    "onnx": made.ONNX_ACCURACY,
    "frozen": made.FROZEN_ACCURACY,
    "quantized": made.QUANTIZED_ACCURACY,
    "board": made.BOARD_ACCURACY,
}
"""Stage -> its accuracy record."""


def stage_records(settings: "Settings", run: Names) -> list[str]:
    """The accuracy records of a run, in the order of its stages."""
    return [made.of(STAGES[stage], run) for stage in settings.stages(run.model)]


def result_files(settings: "Settings", run: Names) -> dict[str, str]:
    """What the report reads of a run: key of `dpuflow.report.inputs.FILES` -> path."""
    files, stages = {"dataset": made.DATASET, **_trained_files(settings, run)}, settings.stages(run.model)
    if "frozen" in stages:
        files |= {"frozen_graph": made.FROZEN_GRAPH, "frozen_accuracy": made.FROZEN_ACCURACY}
    if "quantized" in stages:
        files |= {
            **_quantized_files(settings, run),
            "quantization": made.QUANTIZATION,
            "quantized_accuracy": made.QUANTIZED_ACCURACY,
        }
    files["xmodel"] = made.XMODEL
    if "quantized" in stages:
        files["compile"] = made.COMPILE_REPORT
    files |= {"predictions": made.PREDICTIONS, "board_accuracy": made.BOARD_ACCURACY}
    if "diagnose" in settings.config:
        files["deviation"] = made.DEVIATION
    return {key: made.of(pattern, run) for key, pattern in files.items()}


def _trained_files(settings, run):
    """The network as it was trained, where the chain has it: a frozen graph is the first form of its own."""
    files = {}
    if settings.is_trained(run.model):
        files["history"] = made.HISTORY
    if settings.has_keras(run.model):
        files |= {
            "keras_model": made.KERAS_MODEL,
            "keras_accuracy": made.KERAS_ACCURACY,
            "freeze": made.FREEZE_REPORT,
        }
    if settings.origin(run.model) == "onnx":
        files |= {"onnx_model": made.ONNX_MODEL, "onnx_accuracy": made.ONNX_ACCURACY}
    return files


def _quantized_files(settings, run):
    """The quantized network: our quantizer writes it twice, each of the vendor's in its own form."""
    tool = settings.config["quantizers"][run.quantizer]["tool"]
    if tool == "reference":
        return {"quantized_graph": made.EVAL_GRAPH, "quantized_model": made.QUANTIZED_MODEL}
    return {"quantized_graph": made.EVAL_GRAPH if tool == "vai_q_tensorflow" else made.QUANTIZED_MODEL}


def diagnosed_files(settings: "Settings", run: Names) -> dict[str, str]:
    """The stages of a run that `dpuflow.deviation` compares: name of an input -> path.

    What the stages answered is not among them, but for a board's: a run that fails is what one diagnoses.
    """
    files, stages = {"dataset": made.DATASET, "xmodel": made.XMODEL}, settings.stages(run.model)
    if "quantized" in stages and settings.config["quantizers"][run.quantizer]["tool"] == "reference":
        files["quantized"] = made.QUANTIZED_MODEL
        if "frozen" in stages:
            files["network"] = made.NETWORK
    if settings.config["runners"][run.runner]["kind"] in BOARDS:
        files |= {"board": made.BOARD_RECORD, "board_accuracy": made.BOARD_ACCURACY}
    return {key: made.of(pattern, run) for key, pattern in files.items()}


def report_entries(settings: "Settings", runs: Iterable[Names]) -> list[dict[str, Any]]:
    """One mapping per run, as `dpuflow.report.inputs.load_run` takes it: its names and its files."""
    return [
        {
            "dataset": run.dataset,
            "model": run.model,
            "quantizer": run.quantizer,
            "target": run.target,
            "runner": run.runner,
            "files": result_files(settings, run),
        }
        for run in runs
    ]


def benchmark_files(run: Names) -> list[str]:
    """Where Snakemake notes the seconds of the jobs that lead to a run, shared ones included.

    Not every run has all of them: which stages there are depends on the model and the tools.
    """
    stages = {
        made.DATA: ("obtain_dataset", "build_dataset"),
        made.TRAINED: (
            *("train", "finetune", "import_keras", "evaluate_keras"),
            *("freeze", "import_frozen", "import_saved_model", "import_onnx", "evaluate_onnx"),
            "evaluate_frozen",
        ),
        made.QUANTIZED: ("quantize", "import_quantized", "evaluate_quantized", "predict"),
        made.COMPILED: ("compile", "take_xmodel"),
        made.RUN: ("run",),
    }
    return [made.of(made.times(folder, job), run) for folder, jobs in stages.items() for job in jobs]


def sweep_entries(settings: "Settings", runs: Sequence[Names]) -> list[dict[str, Any]]:
    """`report_entries` with the benchmark files, for `dpuflow.report.sweep`."""
    entries = report_entries(settings, runs)
    return [entry | {"benchmarks": benchmark_files(run)} for entry, run in zip(entries, runs, strict=True)]


def all_result_files(settings: "Settings", runs: Iterable[Names]) -> list[str]:
    """Every file that a report on these runs reads, sorted, each once."""
    return sorted({path for run in runs for path in result_files(settings, run).values()})


def artifact_files(settings: "Settings", run: Names) -> set[str]:
    """Every file that the chain makes for a run, from its images to the answers of the board.

    Left out: the gates' verdicts (they come after all else, and fail), bundles and the
    containers' working files.
    """
    stages = settings.stages(run.model)
    patterns = {made.NODES, made.NETWORK} if "frozen" in stages else set()
    if settings.origin(run.model) == "quantized":
        patterns.add(made.KEPT_NODES)
    if settings.dataset(run.dataset)["source"]["kind"] != "pictures":
        patterns |= {made.TRAIN_CSV, made.TEST_CSV}
    if settings.has_keras(run.model):
        patterns.update(made.CHECKPOINT_FILES)
    if settings.origin(run.model) == "starts_from":
        patterns.add(made.FINETUNE)
    own = settings.config["quantizers"][run.quantizer]["tool"] == "reference"
    if own and "quantized" in stages:  # compilers of our own, or vai_c_xir
        patterns.add(made.QUANTIZED_XMODEL)
    if settings.config["runners"][run.runner]["kind"] in BOARDS:
        patterns.add(made.BOARD_RECORD)
    return {made.of(pattern, run) for pattern in patterns} | set(result_files(settings, run).values())


def all_artifact_files(settings: "Settings", runs: Iterable[Names]) -> list[str]:
    """`artifact_files` of all runs, sorted, each once."""
    return sorted({path for run in runs for path in artifact_files(settings, run)})
