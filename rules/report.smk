# All results -> one report

SUFFIX = f".{NAME}" if NAME else ""  # of logs and times

SNAKEFILE = str(relative("Snakefile"))
RULE_FILES = [str(relative(path.relative_to(ROOT))) for path in sorted(ROOT.glob("rules/*.smk"))]


rule report:
    message:
        "Write the accuracy report."
    input:
        results=run_files.all_result_files(SETTINGS, RUNS),
    output:
        html=report(f"{REPORT}/accuracy.html", caption="../report/accuracy.rst", category="Accuracy"),
        markdown=f"{REPORT}/accuracy.md",
        data=f"{REPORT}/accuracy.json",
    log:
        f"logs/report{SUFFIX}.log",
    benchmark:
        f"benchmarks/jobs/report{SUFFIX}.tsv"
    params:
        runs=run_files.report_entries(SETTINGS, RUNS),
        config=SETTINGS.used_by(RUNS),
        commands=["snakemake all"],
        repository=os.path.relpath(ROOT),
    resources:
        mem_mb=growing(2000),
        runtime=15,
    conda:
        "../envs/report.yaml"
    script:
        "../scripts/report.py"


rule provenance:
    message:
        "Record the checksum of every artifact, versions and seeds."
    input:
        artifacts=run_files.all_artifact_files(SETTINGS, RUNS),
        report=rules.report.output,
    output:
        record=f"{REPORT}/provenance.json",
    log:
        f"logs/provenance{SUFFIX}.log",
    benchmark:
        f"benchmarks/jobs/provenance{SUFFIX}.tsv"
    params:
        config=SETTINGS.used_by(RUNS),
        seeds=SETTINGS.seeds(RUNS),
        commands=["snakemake all"],
        repository=os.path.relpath(ROOT),
    resources:
        mem_mb=growing(500),
        runtime=15,
    conda:
        "../envs/tensorflow.yaml"
    script:
        "../scripts/provenance.py"


rule sweep_report:
    message:
        "Rank all runs and draw their trade-offs."
    input:
        results=run_files.all_result_files(SETTINGS, RUNS),
    output:
        html=report(f"{REPORT}/sweep.html", caption="../report/sweep.rst", category="Sweep"),
        data=f"{REPORT}/sweep.json",
    log:
        f"logs/sweep_report{SUFFIX}.log",
    benchmark:
        f"benchmarks/jobs/sweep_report{SUFFIX}.tsv"
    params:
        runs=run_files.sweep_entries(SETTINGS, RUNS),
    resources:
        mem_mb=growing(2000),
        runtime=15,
    conda:
        "../envs/report.yaml"
    script:
        "../scripts/sweep_report.py"


rule rulegraph:
    message:
        "Draw the rules of this configuration."
    input:
        snakefile=SNAKEFILE,
        rules=RULE_FILES,
    output:
        picture="results/rulegraph.svg",
    log:
        "logs/rulegraph.log",
    params:
        what="rulegraph",
        config=config,
    resources:
        mem_mb=500,
        runtime=5,
    conda:
        "../envs/dpuflow.yaml"
    script:
        "../scripts/draw_workflow.py"


rule dag_svg:
    message:
        "Draw the jobs of this configuration."
    input:
        snakefile=SNAKEFILE,
        rules=RULE_FILES,
    output:
        picture="results/dag.svg",
    log:
        "logs/dag_svg.log",
    params:
        what="dag",
        config=config,
    resources:
        mem_mb=500,
        runtime=5,
    conda:
        "../envs/dpuflow.yaml"
    script:
        "../scripts/draw_workflow.py"
