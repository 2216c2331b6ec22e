# All results -> one report


def result_files(run):
    """What the report reads of one run: key of `dpuflow.report.inputs.FILES` -> path."""
    model = f"results/{run.dataset}/{run.model}"
    quantized = f"{model}/{run.quantizer}"
    compiled = f"{quantized}/{run.target}"
    board = f"{compiled}/{run.runner}"
    origin = SETTINGS.origin(run.model)
    files = {"dataset": f"results/{run.dataset}/dataset.h5"}
    if origin == "layers":
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
        **quantized_files(run, quantized),
        "quantization": f"{quantized}/quantization.json",
        "quantized_accuracy": f"{quantized}/quantized_accuracy.json",
        "xmodel": f"{compiled}/{run.model}.xmodel",
        "compile": f"{compiled}/compile.json",
        "predictions": f"{board}/predictions.csv",
        "board_accuracy": f"{board}/board_accuracy.json",
    }


def quantized_files(run, folder):
    """The quantized network: our quantizer writes it twice, each of the vendor's in its own form."""
    graph, model = f"{folder}/quantize_eval_model.pb", f"{folder}/quantized_model.h5"
    tool = config["quantizers"][run.quantizer]["tool"]
    if tool == "reference":
        return {"quantized_graph": graph, "quantized_model": model}
    return {"quantized_graph": graph if tool == "vai_q_tensorflow" else model}


def report_entries():
    """One mapping per run: its names and its files."""
    return [
        {
            "dataset": run.dataset,
            "model": run.model,
            "quantizer": run.quantizer,
            "target": run.target,
            "runner": run.runner,
            "runner_kind": config["runners"][run.runner]["kind"],
            "files": result_files(run),
        }
        for run in RUNS
    ]


rule report:
    message:
        "Write the accuracy report."
    input:
        code=code("report.py"),
        results=sorted({path for run in RUNS for path in result_files(run).values()}),
    output:
        html=report("results/report/accuracy.html", caption="../report/accuracy.rst", category="Accuracy"),
        markdown="results/report/accuracy.md",
        data="results/report/accuracy.json",
    log:
        "logs/report.log",
    benchmark:
        "benchmarks/jobs/report.tsv"
    params:
        runs=report_entries(),
        config=SETTINGS.used_by(RUNS),
        commands=["snakemake all"],
        repository=str(ROOT),
    resources:
        mem_mb=2000,
        runtime=15,
    script:
        "../scripts/report.py"


rule sweep_report:
    message:
        "Rank all runs and draw their trade-offs."
    input:
        code=code("sweep_report.py"),
        results=sorted({path for run in RUNS for path in result_files(run).values()}),
    output:
        html=report("results/report/sweep.html", caption="../report/sweep.rst", category="Sweep"),
        data="results/report/sweep.json",
    log:
        "logs/sweep_report.log",
    benchmark:
        "benchmarks/jobs/sweep_report.tsv"
    params:
        runs=report_entries(),
    resources:
        mem_mb=2000,
        runtime=15,
    script:
        "../scripts/sweep_report.py"
