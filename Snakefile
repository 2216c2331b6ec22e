# dpuflow: from a CSV of images to an accuracy report off an FPGA board.
# Which rule makes an artifact: README.md, "Artifacts"; which keys it depends on: config/README.md.

from snakemake.utils import min_version, validate

min_version("9.0")


include: "rules/defaults.smk"


configfile: DEFAULTS


include: "rules/common.smk"


validate(config, "config/config.schema.yaml")
sort_keys(config)  # with the defaults filled in; Snakemake compares params as texts


report: "report/workflow.rst"


include: "rules/dataset.smk"
include: "rules/train.smk"
include: "rules/freeze.smk"
include: "rules/quantize.smk"
include: "rules/quantizer_search.smk"
include: "rules/compile.smk"
include: "rules/vitis_ai_inputs.smk"
include: "rules/vitis_ai.smk"
include: "rules/vitis_ai_compile.smk"
include: "rules/board.smk"
include: "rules/diagnose.smk"
include: "rules/report.smk"
include: "rules/predict.smk"


rule all:
    message:
        f"The report is at {REPORT}/accuracy.html."
    default_target: True
    input:
        rules.report.output,
        rules.provenance.output,
        # gates come last: a run that loses too much fails, and its report is there to be read
        gates=[f"results/{run.folder}/gate.json" for run in RUNS if config.get("gates")],


rule bundles:
    message:
        "The bundles for the boards are under deploy/."
    input:
        sorted({f"deploy/{run.target}/{run.dataset}.{run.model}.{run.quantizer}.tar" for run in RUNS}),


rule sweep:
    message:
        f"The ranking is at {REPORT}/sweep.html."
    input:
        rules.sweep_report.output,


onsuccess:
    # where the results are is what one wants to know, if this run wrote them
    written = Path(REPORT, "accuracy.json")
    if written.exists() and written.stat().st_mtime >= STARTED:
        from dpuflow.base.files import read_json  # here, because it costs a tenth of a second (NumPy)

        print(summary(read_json(written), f"{REPORT}/accuracy.html"), file=sys.stderr)


onerror:
    report_the_rest()


# last: they look at all rules
include: "rules/user_files.smk"
include: "rules/implementation.smk"
