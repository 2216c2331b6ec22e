# CSV files or pictures -> dataset.h5

from dpuflow.datasets.locate import given_files


rule obtain_dataset:
    message:
        "Obtain the data set {wildcards.dataset} and verify it."
    input:
        source=lambda w: given_files(
            SETTINGS.dataset(w.dataset)["source"], is_made, one_file="test" in SETTINGS.dataset(w.dataset)
        ),
    output:
        train=made.TRAIN_CSV,
        test=made.TEST_CSV,
    log:
        made.log(made.DATA, "obtain_dataset"),
    benchmark:
        made.times(made.DATA, "obtain_dataset")
    wildcard_constraints:
        dataset=SETTINGS.datasets_of("synthetic", "files", "kaggle"),
    params:
        entry=lambda w: {
            k: v
            for k, v in SETTINGS.dataset(w.dataset).items()
            if k in ("source", "image", "class_names", "test")
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
        train=made.TRAIN_CSV,
        test=made.TEST_CSV,
    output:
        dataset=made.DATASET,
    log:
        made.log(made.DATA, "build_dataset"),
    benchmark:
        made.times(made.DATA, "build_dataset")
    wildcard_constraints:
        dataset=SETTINGS.datasets_of("synthetic", "files", "kaggle"),
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


rule build_picture_dataset:
    message:
        "Read the pictures of {wildcards.dataset} and divide them."
    input:
        source=lambda w: given_files(
            SETTINGS.dataset(w.dataset)["source"], is_made, one_file="test" in SETTINGS.dataset(w.dataset)
        ),
    output:
        dataset=made.DATASET,
    log:
        made.log(made.DATA, "build_picture_dataset"),
    benchmark:
        made.times(made.DATA, "build_dataset")
    wildcard_constraints:
        dataset=SETTINGS.datasets_of("pictures"),
    params:
        entry=lambda w: SETTINGS.dataset(w.dataset),
        pictures=lambda w: pictures_of(w.dataset),
    group:
        "data"
    threads: 2
    resources:
        mem_mb=growing(2000),
        runtime=60,
    conda:
        "../envs/dpuflow.yaml"
    script:
        "../scripts/build_picture_dataset.py"
