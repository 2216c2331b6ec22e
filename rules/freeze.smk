# keras_trained_model.h5 -> TensorFlow checkpoint -> frozen_graph.pb
#
# Both steps are one job, because a start of TensorFlow takes longer than the two together.


rule freeze:
    message:
        "Save {wildcards.model} as a TensorFlow checkpoint and freeze it; prove that its output stays."
    input:
        model="results/{dataset}/{model}/keras_trained_model.h5",
        dataset="results/{dataset}/dataset.h5",
    output:
        checkpoint=multiext(
            "results/{dataset}/{model}/tf/tfchkpt.ckpt", ".meta", ".index", ".data-00000-of-00001"
        ),
        latest="results/{dataset}/{model}/tf/checkpoint",
        complete="results/{dataset}/{model}/tf/tf_complete_model.pb",
        nodes="results/{dataset}/{model}/tf/nodes.json",
        graph="results/{dataset}/{model}/frozen_graph.pb",
        report="results/{dataset}/{model}/freeze.json",
    log:
        "logs/{dataset}/{model}/freeze.log",
    benchmark:
        "benchmarks/jobs/{dataset}/{model}/freeze.tsv"
    wildcard_constraints:
        model=SETTINGS.models_from("layers", "keras_h5", "starts_from"),
    params:
        input_scaling=lambda w: SETTINGS.input_scaling(w.model),
        tolerance=1e-5,
    group:
        "graph"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=15,
    conda:
        "../envs/tensorflow.yaml"
    script:
        "../scripts/freeze.py"


rule import_frozen:
    message:
        "Take the frozen graph of {wildcards.model} from {input.source}."
    input:
        dataset="results/{dataset}/dataset.h5",
        source=lambda w: os.path.expanduser(SETTINGS.model(w.model)["frozen_pb"]),
    output:
        graph="results/{dataset}/{model}/frozen_graph.pb",
        nodes="results/{dataset}/{model}/tf/nodes.json",
    log:
        "logs/{dataset}/{model}/import_frozen.log",
    benchmark:
        "benchmarks/jobs/{dataset}/{model}/import_frozen.tsv"
    wildcard_constraints:
        model=SETTINGS.models_from("frozen_pb"),
    params:
        # one mapping: Snakemake compares the values of params without their names
        nodes=lambda w: {end: SETTINGS.model(w.model).get(f"{end}_node") for end in ("input", "output")},
    group:
        "graph"
    resources:
        mem_mb=growing(1000),
        runtime=10,
    conda:
        "../envs/dpuflow.yaml"
    script:
        "../scripts/import_frozen.py"


rule evaluate_frozen:
    message:
        "Measure the frozen graph of {wildcards.model} on every test image."
    input:
        dataset="results/{dataset}/dataset.h5",
        graph="results/{dataset}/{model}/frozen_graph.pb",
        nodes="results/{dataset}/{model}/tf/nodes.json",
    output:
        accuracy="results/{dataset}/{model}/frozen_accuracy.json",
    log:
        "logs/{dataset}/{model}/evaluate_frozen.log",
    benchmark:
        "benchmarks/jobs/{dataset}/{model}/evaluate_frozen.tsv"
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
        "../scripts/evaluate_frozen.py"
