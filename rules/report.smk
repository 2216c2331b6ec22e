# All results -> one report


rule report:
    message:
        "Write the accuracy report."
    input:
        results=run_files.all_result_files(SETTINGS, RUNS),
    output:
        html=report("results/report/accuracy.html", caption="../report/accuracy.rst", category="Accuracy"),
        markdown="results/report/accuracy.md",
        data="results/report/accuracy.json",
    log:
        "logs/report.log",
    benchmark:
        "benchmarks/jobs/report.tsv"
    params:
        code=code("report.py"),
        runs=run_files.report_entries(SETTINGS, RUNS),
        config=SETTINGS.used_by(RUNS),
        commands=["snakemake all"],
        repository=str(ROOT),
    resources:
        mem_mb=growing(2000),
        runtime=15,
    conda:
        "../envs/report.yaml"
    script:
        "../scripts/report.py"


rule sweep_report:
    message:
        "Rank all runs and draw their trade-offs."
    input:
        results=run_files.all_result_files(SETTINGS, RUNS),
    output:
        html=report("results/report/sweep.html", caption="../report/sweep.rst", category="Sweep"),
        data="results/report/sweep.json",
    log:
        "logs/sweep_report.log",
    benchmark:
        "benchmarks/jobs/sweep_report.tsv"
    params:
        code=code("sweep_report.py"),
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
    output:
        picture="results/rulegraph.svg",
    log:
        "logs/rulegraph.log",
    params:
        code=code("draw_workflow.py"),
        what="rulegraph",
        config=config,
        snakefile=str(ROOT / "Snakefile"),
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
    output:
        picture="results/dag.svg",
    log:
        "logs/dag_svg.log",
    params:
        code=code("draw_workflow.py"),
        what="dag",
        config=config,
        snakefile=str(ROOT / "Snakefile"),
    resources:
        mem_mb=500,
        runtime=5,
    conda:
        "../envs/dpuflow.yaml"
    script:
        "../scripts/draw_workflow.py"
