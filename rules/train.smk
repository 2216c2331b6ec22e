# dataset.h5 -> keras_trained_model.h5 and its accuracy


rule train:
    message:
        "Train {wildcards.model} on {wildcards.dataset}."
    input:
        dataset=made.DATASET,
        weights=lambda w: weights_file(SETTINGS.model(w.model)),
    output:
        model=made.KERAS_MODEL,
        history=made.HISTORY,
    log:
        made.log(made.TRAINED, "train"),
    benchmark:
        made.times(made.TRAINED, "train")
    wildcard_constraints:
        model=SETTINGS.models_from("layers", "application"),
    params:
        model=lambda w: w.model,
        layers=lambda w: SETTINGS.model(w.model).get("layers"),
        application=lambda w: SETTINGS.application(w.model),
        decode=lambda w: SETTINGS.decode(w.model),
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
        dataset=made.DATASET,
        start=lambda w: made.KERAS_MODEL.format(dataset=w.dataset, model=SETTINGS.start_of(w.model)),
    output:
        model=made.KERAS_MODEL,
        history=made.HISTORY,
        gain=made.FINETUNE,
    log:
        made.log(made.TRAINED, "finetune"),
    benchmark:
        made.times(made.TRAINED, "finetune")
    wildcard_constraints:
        model=SETTINGS.models_from("starts_from"),
    params:
        model=lambda w: w.model.partition("-s")[0],
        decode=lambda w: SETTINGS.decode(w.model),
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
        "Take the trained model {wildcards.model} from {params.source}."
    input:
        dataset=made.DATASET,
        source=lambda w: user_file(SETTINGS.model(w.model)["keras_h5"]),
    output:
        model=made.KERAS_MODEL,
    log:
        made.log(made.TRAINED, "import_keras"),
    benchmark:
        made.times(made.TRAINED, "import_keras")
    wildcard_constraints:
        model=SETTINGS.models_from("keras_h5"),
    params:
        answer=lambda w: SETTINGS.answer(w.model, w.dataset),
        source=lambda w: SETTINGS.model(w.model)["keras_h5"],
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
        dataset=made.DATASET,
        model=made.KERAS_MODEL,
    output:
        accuracy=made.KERAS_ACCURACY,
    log:
        made.log(made.TRAINED, "evaluate_keras"),
    benchmark:
        made.times(made.TRAINED, "evaluate_keras")
    params:
        answer=lambda w: SETTINGS.answer(w.model, w.dataset),
        decode=lambda w: SETTINGS.decode(w.model),
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
