# all stages of a run, layer by layer -> where each first leaves its tolerance

DIAGNOSE = config.get("diagnose", {})


rule diagnose_run:
    message:
        "Find the first deviating layer of {wildcards.model} ({wildcards.target}, {wildcards.runner})."
    input:
        unpack(lambda w: run_files.diagnosed_files(SETTINGS, w)),
    output:
        record=made.DEVIATION,
        page=report(
            made.DEVIATION_PAGE,
            caption="../report/deviation.rst",
            category="First deviating layer",
            labels={
                "data set": "{dataset}",
                "model": "{model}",
                "quantizer": "{quantizer}",
                "target": "{target}",
                "runner": "{runner}",
            },
        ),
    log:
        made.log(made.RUN, "diagnose"),
    benchmark:
        made.times(made.RUN, "diagnose")
    params:
        run=lambda w: dict(w.items()),
        images=DIAGNOSE.get("images", 4),
        sqnr_db=DIAGNOSE.get("sqnr_db", 10),
        input_scaling=lambda w: SETTINGS.input_scaling(w.model),
    threads: 2
    resources:
        mem_mb=growing(4000),
        runtime=60,
    conda:
        "../envs/dpuflow.yaml"
    script:
        "../scripts/diagnose.py"


rule diagnose:
    message:
        "Where each stage first deviates is in deviation.html of each run."
    input:
        sorted({made.of(pattern, run) for run in RUNS for pattern in (made.DEVIATION, made.DEVIATION_PAGE)}),
