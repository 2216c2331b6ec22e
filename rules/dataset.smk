# CSV files -> dataset.h5

from dpuflow.datasets.locate import given_files


rule obtain_dataset:
    message:
        "Obtain the data set {wildcards.dataset} and verify it."
    input:
        source=lambda w: given_files(SETTINGS.dataset(w.dataset)["source"]),
    output:
        train="resources/{dataset}/train.csv",
        test="resources/{dataset}/test.csv",
    log:
        "logs/{dataset}/obtain_dataset.log",
    benchmark:
        "benchmarks/jobs/{dataset}/obtain_dataset.tsv"
    params:
        entry=lambda w: {
            k: v for k, v in SETTINGS.dataset(w.dataset).items() if k in ("source", "image", "class_names")
        },
    group:
        "data"
    threads: 2
    resources:
        mem_mb=growing(2000),
        runtime=20,
    conda:
        "../envs/dpuflow.yaml"
    script:
        "../scripts/obtain_dataset.py"


rule build_dataset:
    message:
        "Read the CSV files of {wildcards.dataset} and divide the training rows."
    input:
        train="resources/{dataset}/train.csv",
        test="resources/{dataset}/test.csv",
    output:
        dataset="results/{dataset}/dataset.h5",
    log:
        "logs/{dataset}/build_dataset.log",
    benchmark:
        "benchmarks/jobs/{dataset}/build_dataset.tsv"
    params:
        entry=lambda w: {k: v for k, v in SETTINGS.dataset(w.dataset).items() if k != "source"},
    group:
        "data"
    resources:
        mem_mb=growing(2000),
        runtime=20,
    conda:
        "../envs/dpuflow.yaml"
    script:
        "../scripts/build_dataset.py"
