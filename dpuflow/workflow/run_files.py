"""Where the artifacts of a run lie, for the rules that collect them.

A run is anything with the attributes dataset, model, quantizer, target and runner
(`config.Run`, a rule's wildcards); settings is `config.Settings`.
"""

CHECKPOINT_FILES = (
    "checkpoint",
    "tfchkpt.ckpt.data-00000-of-00001",
    "tfchkpt.ckpt.index",
    "tfchkpt.ckpt.meta",
    "tf_complete_model.pb",
)
"""What `freeze` writes beside nodes.json."""


def stage_records(settings, run):
    """The accuracy records of a run, in the order of its stages."""
    model = f"results/{run.dataset}/{run.model}"
    stages = [] if settings.origin(run.model) == "frozen_pb" else [f"{model}/keras_accuracy.json"]
    return stages + [
        f"{model}/frozen_accuracy.json",
        f"{model}/{run.quantizer}/quantized_accuracy.json",
        f"{model}/{run.quantizer}/{run.target}/{run.runner}/board_accuracy.json",
    ]


def result_files(settings, run):
    """What the report reads of a run: key of `dpuflow.report.inputs.FILES` -> path."""
    model = f"results/{run.dataset}/{run.model}"
    quantized = f"{model}/{run.quantizer}"
    compiled = f"{quantized}/{run.target}"
    board = f"{compiled}/{run.runner}"
    origin = settings.origin(run.model)
    files = {"dataset": f"results/{run.dataset}/dataset.h5"}
    if origin in ("layers", "starts_from"):
        files["history"] = f"{model}/history.csv"
    if origin != "frozen_pb":
        files |= {
            "keras_model": f"{model}/keras_trained_model.h5",
            "keras_accuracy": f"{model}/keras_accuracy.json",
            "freeze": f"{model}/freeze.json",
        }
    return files | {
        "frozen_graph": f"{model}/frozen_graph.pb",
        "frozen_accuracy": f"{model}/frozen_accuracy.json",
        **quantized_files(settings, run, quantized),
        "quantization": f"{quantized}/quantization.json",
        "quantized_accuracy": f"{quantized}/quantized_accuracy.json",
        "xmodel": f"{compiled}/{run.model}.xmodel",
        "compile": f"{compiled}/compile.json",
        "predictions": f"{board}/predictions.csv",
        "board_accuracy": f"{board}/board_accuracy.json",
    }


def quantized_files(settings, run, folder):
    """The quantized network: our quantizer writes it twice, each of the vendor's in its own form."""
    graph, model = f"{folder}/quantize_eval_model.pb", f"{folder}/quantized_model.h5"
    tool = settings.config["quantizers"][run.quantizer]["tool"]
    if tool == "reference":
        return {"quantized_graph": graph, "quantized_model": model}
    return {"quantized_graph": graph if tool == "vai_q_tensorflow" else model}


def report_entries(settings, runs):
    """One mapping per run, as `dpuflow.report.inputs.load_run` takes it: its names and its files."""
    return [
        {
            "dataset": run.dataset,
            "model": run.model,
            "quantizer": run.quantizer,
            "target": run.target,
            "runner": run.runner,
            "runner_kind": settings.config["runners"][run.runner]["kind"],
            "files": result_files(settings, run),
        }
        for run in runs
    ]


def benchmark_files(run):
    """Where Snakemake notes the seconds of the jobs that lead to a run, shared ones included.

    Not every run has all of them: which stages there are depends on the model and the tools.
    """
    dataset = f"benchmarks/jobs/{run.dataset}"
    model = f"{dataset}/{run.model}"
    quantized = f"{model}/{run.quantizer}"
    compiled = f"{quantized}/{run.target}"
    stages = {
        dataset: ("obtain_dataset", "build_dataset"),
        model: (
            *("train", "finetune", "import_keras", "evaluate_keras"),
            *("freeze", "import_frozen", "evaluate_frozen"),
        ),
        quantized: ("quantize", "evaluate_quantized", "predict"),
        compiled: ("compile",),
        f"{compiled}/{run.runner}": ("run",),
    }
    return [f"{folder}/{name}.tsv" for folder, names in stages.items() for name in names]


def sweep_entries(settings, runs):
    """`report_entries` with the benchmark files, for `dpuflow.report.sweep`."""
    entries = report_entries(settings, runs)
    return [entry | {"benchmarks": benchmark_files(run)} for entry, run in zip(entries, runs, strict=True)]


def all_result_files(settings, runs):
    """Every file that a report on these runs reads, sorted, each once."""
    return sorted({path for run in runs for path in result_files(settings, run).values()})


def artifact_files(settings, run):
    """Every file that the chain makes for a run, from its CSV files to the answers of the board.

    Left out: the gates' verdicts (they come after all else, and fail), bundles and the
    containers' working files.
    """
    model = f"results/{run.dataset}/{run.model}"
    quantized = f"{model}/{run.quantizer}"
    compiled = f"{quantized}/{run.target}"
    found = {f"resources/{run.dataset}/{part}.csv" for part in ("train", "test")}
    found |= set(result_files(settings, run).values())
    found.add(f"{model}/tf/nodes.json")
    if settings.origin(run.model) != "frozen_pb":
        found |= {f"{model}/tf/{name}" for name in CHECKPOINT_FILES}
    if settings.origin(run.model) == "starts_from":
        found.add(f"{model}/finetune.json")
    if (
        settings.config["quantizers"][run.quantizer]["tool"] == "reference"
    ):  # compilers of our own, or vai_c_xir
        found.add(f"{compiled}/{run.model}.quantized.xmodel")
    if settings.config["runners"][run.runner]["kind"] in ("virtual_board", "ssh"):
        found.add(f"{compiled}/{run.runner}/board.json")
    return found


def all_artifact_files(settings, runs):
    """`artifact_files` of all runs, sorted, each once."""
    return sorted({path for run in runs for path in artifact_files(settings, run)})
