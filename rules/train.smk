# dataset.h5 -> keras_trained_model.h5 and its accuracy


rule train:
    message:
        "Train {wildcards.model} on {wildcards.dataset}."
    input:
        dataset="results/{dataset}/dataset.h5",
    output:
        model="results/{dataset}/{model}/keras_trained_model.h5",
        history="results/{dataset}/{model}/history.csv",
    log:
        "logs/{dataset}/{model}/train.log",
    benchmark:
        "benchmarks/jobs/{dataset}/{model}/train.tsv"
    wildcard_constraints:
        model=SETTINGS.models_from("layers"),
    params:
        model=lambda w: w.model,
        layers=lambda w: SETTINGS.model(w.model)["layers"],
        training=lambda w: SETTINGS.model(w.model)["training"],
        input_scaling=lambda w: SETTINGS.input_scaling(w.model),
        seed=lambda w: SETTINGS.seed(w.model),
    threads: 2
    resources:
        mem_mb=growing(4000),
        runtime=240,
    conda:
        "../envs/tensorflow.yaml"
    script:
        "../scripts/train.py"


rule finetune:
    message:
        "Train {wildcards.model} further from {input.start}."
    input:
        dataset="results/{dataset}/dataset.h5",
        start=lambda w: f"results/{w.dataset}/{SETTINGS.start_of(w.model)}/keras_trained_model.h5",
    output:
        model="results/{dataset}/{model}/keras_trained_model.h5",
        history="results/{dataset}/{model}/history.csv",
        gain="results/{dataset}/{model}/finetune.json",
    log:
        "logs/{dataset}/{model}/finetune.log",
    benchmark:
        "benchmarks/jobs/{dataset}/{model}/finetune.tsv"
    wildcard_constraints:
        model=SETTINGS.models_from("starts_from"),
    params:
        qat=lambda w: SETTINGS.model(w.model).get("qat", False),
        training=lambda w: SETTINGS.model(w.model)["training"],
        input_scaling=lambda w: SETTINGS.input_scaling(w.model),
        seed=lambda w: SETTINGS.seed(w.model),
    threads: 2
    resources:
        mem_mb=growing(4000),
        runtime=240,
    conda:
        "../envs/tensorflow.yaml"
    script:
        "../scripts/finetune.py"


rule import_keras:
    message:
        "Take the trained model {wildcards.model} from {input.source}."
    input:
        dataset="results/{dataset}/dataset.h5",
        source=lambda w: os.path.expanduser(SETTINGS.model(w.model)["keras_h5"]),
    output:
        model="results/{dataset}/{model}/keras_trained_model.h5",
    log:
        "logs/{dataset}/{model}/import_keras.log",
    benchmark:
        "benchmarks/jobs/{dataset}/{model}/import_keras.tsv"
    wildcard_constraints:
        model=SETTINGS.models_from("keras_h5"),
    group:
        "graph"
    resources:
        mem_mb=growing(2000),
        runtime=10,
    conda:
        "../envs/tensorflow.yaml"
    script:
        "../scripts/import_keras.py"


rule evaluate_keras:
    message:
        "Measure {wildcards.model} on every test image of {wildcards.dataset}, as trained."
    input:
        dataset="results/{dataset}/dataset.h5",
        model="results/{dataset}/{model}/keras_trained_model.h5",
    output:
        accuracy="results/{dataset}/{model}/keras_accuracy.json",
    log:
        "logs/{dataset}/{model}/evaluate_keras.log",
    benchmark:
        "benchmarks/jobs/{dataset}/{model}/evaluate_keras.tsv"
    params:
        input_scaling=lambda w: SETTINGS.input_scaling(w.model),
    group:
        "graph"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=30,
    conda:
        "../envs/tensorflow.yaml"
    script:
        "../scripts/evaluate_keras.py"
