# keras_trained_model.h5 -> TensorFlow checkpoint -> frozen_graph.pb -> network.h5
#
# These steps are one job, because a start of TensorFlow takes longer than all of them together. A network from
# elsewhere enters at its first form here: frozen_graph.pb, or network.h5, of which the frozen graph is then made.

from dpuflow.onnx_graph.external_data import external_files


rule freeze:
    message:
        "Save {wildcards.model} as a TensorFlow checkpoint and freeze it; prove that its output stays."
    input:
        model=made.KERAS_MODEL,
        dataset=made.DATASET,
    output:
        checkpoint=multiext(made.CHECKPOINT, ".meta", ".index", ".data-00000-of-00001"),
        latest=made.CHECKPOINT_STATE,
        complete=made.COMPLETE_GRAPH,
        nodes=made.NODES,
        graph=made.FROZEN_GRAPH,
        network=made.NETWORK,
        report=made.FREEZE_REPORT,
    log:
        made.log(made.TRAINED, "freeze"),
    benchmark:
        made.times(made.TRAINED, "freeze")
    wildcard_constraints:
        model=SETTINGS.models_from("layers", "application", "keras_h5", "starts_from"),
    params:
        model=lambda w: w.model,
        input_scaling=lambda w: SETTINGS.input_scaling(w.model),
        tolerance=1e-4,
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
        "Take the frozen graph of {wildcards.model} from {params.source}."
    input:
        dataset=made.DATASET,
        source=lambda w: user_file(SETTINGS.model(w.model)["frozen_pb"]),
    output:
        graph=made.FROZEN_GRAPH,
        nodes=made.NODES,
        network=made.NETWORK,
    log:
        made.log(made.TRAINED, "import_frozen"),
    benchmark:
        made.times(made.TRAINED, "import_frozen")
    wildcard_constraints:
        model=SETTINGS.models_from("frozen_pb"),
    params:
        answer=lambda w: SETTINGS.answer(w.model, w.dataset),
        model=lambda w: w.model,
        source=lambda w: SETTINGS.model(w.model)["frozen_pb"],
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


rule import_saved_model:
    message:
        "Freeze a signature of the SavedModel of {wildcards.model} from {params.source}."
    input:
        dataset=made.DATASET,
        source=lambda w: saved_model_files(expand(SETTINGS.model(w.model)["saved_model"])),
    output:
        graph=made.FROZEN_GRAPH,
        nodes=made.NODES,
        network=made.NETWORK,
    log:
        made.log(made.TRAINED, "import_saved_model"),
    benchmark:
        made.times(made.TRAINED, "import_saved_model")
    wildcard_constraints:
        model=SETTINGS.models_from("saved_model"),
    params:
        answer=lambda w: SETTINGS.answer(w.model, w.dataset),
        model=lambda w: w.model,
        source=lambda w: SETTINGS.model(w.model)["saved_model"],
        # one mapping: Snakemake compares the values of params without their names
        names=lambda w: {key: SETTINGS.model(w.model).get(key) for key in ("signature", "output_node")},
    group:
        "graph"
    resources:
        mem_mb=growing(3000),
        runtime=10,
    conda:
        "../envs/tensorflow.yaml"
    script:
        "../scripts/import_saved_model.py"


rule import_onnx:
    message:
        "Take the ONNX model of {wildcards.model} from {params.source}; prove that its output stays."
    input:
        dataset=made.DATASET,
        source=lambda w: user_file(SETTINGS.model(w.model)["onnx"]),
        weights=lambda w: external_files(expand(SETTINGS.model(w.model)["onnx"])),
    output:
        model=made.ONNX_MODEL,
        network=made.NETWORK,
        graph=made.FROZEN_GRAPH,
        nodes=made.NODES,
    log:
        made.log(made.TRAINED, "import_onnx"),
    benchmark:
        made.times(made.TRAINED, "import_onnx")
    wildcard_constraints:
        model=SETTINGS.models_from("onnx"),
    params:
        answer=lambda w: SETTINGS.answer(w.model, w.dataset),
        model=lambda w: w.model,
        source=lambda w: SETTINGS.model(w.model)["onnx"],
        # one mapping: Snakemake compares the values of params without their names
        nodes=lambda w: SETTINGS.onnx_ends(w.model, w.dataset),
        input_scaling=lambda w: SETTINGS.input_scaling(w.model),
        tolerance=1e-4,
    group:
        "graph"
    resources:
        mem_mb=growing(3000),
        runtime=15,
    conda:
        "../envs/onnx.yaml"
    script:
        "../scripts/import_onnx.py"


rule evaluate_onnx:
    message:
        "Measure {wildcards.model} on every test image of {wildcards.dataset}, as trained, in onnxruntime."
    input:
        dataset=made.DATASET,
        model=made.ONNX_MODEL,
    output:
        accuracy=made.ONNX_ACCURACY,
    log:
        made.log(made.TRAINED, "evaluate_onnx"),
    benchmark:
        made.times(made.TRAINED, "evaluate_onnx")
    params:
        answer=lambda w: SETTINGS.answer(w.model, w.dataset),
        decode=lambda w: SETTINGS.decode(w.model),
        # one mapping: Snakemake compares the values of params without their names
        nodes=lambda w: {end: SETTINGS.model(w.model).get(f"{end}_node") for end in ("input", "output")},
        input_scaling=lambda w: SETTINGS.input_scaling(w.model),
    group:
        "graph"
    threads: 2
    resources:
        mem_mb=growing(3000),
        runtime=60,
    conda:
        "../envs/onnx.yaml"
    script:
        "../scripts/evaluate_onnx.py"


rule evaluate_frozen:
    message:
        "Measure the frozen graph of {wildcards.model} on every test image."
    input:
        dataset=made.DATASET,
        graph=made.FROZEN_GRAPH,
        nodes=made.NODES,
        network=made.NETWORK,
    output:
        accuracy=made.FROZEN_ACCURACY,
    log:
        made.log(made.TRAINED, "evaluate_frozen"),
    benchmark:
        made.times(made.TRAINED, "evaluate_frozen")
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
        "../scripts/evaluate_frozen.py"
