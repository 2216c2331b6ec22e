# network.h5 -> INT8: quantize_eval_model.pb, quantized_model.h5, quantization.json


rule quantize_reference:
    message:
        "Quantize {wildcards.model} to INT8 with {wildcards.quantizer}: {params.steps}; calibrated on training images."
    input:
        dataset=made.DATASET,
        network=made.NETWORK,
        nodes=made.NODES,
        # a model that was trained further: what that gained goes into quantization.json
        finetune=lambda w: (made.of(made.FINETUNE, w) if SETTINGS.origin(w.model) == "starts_from" else []),
    output:
        eval_graph=made.EVAL_GRAPH,
        model=made.QUANTIZED_MODEL,
        report=made.QUANTIZATION,
    log:
        made.log(made.QUANTIZED, "quantize"),
    benchmark:
        made.times(made.QUANTIZED, "quantize")
    wildcard_constraints:
        model=SETTINGS.models_from(*FLOAT_ORIGINS),
        quantizer=SETTINGS.named("quantizers", "tool", "reference"),
    params:
        answer=lambda w: SETTINGS.answer(w.model, w.dataset),
        settings=lambda w: config["quantizers"][w.quantizer],
        steps=lambda w: steps(config["quantizers"][w.quantizer]),
        input_scaling=lambda w: SETTINGS.input_scaling(w.model),
        decode=lambda w: SETTINGS.decode(w.model),
    group:
        "int8"
    # before evaluate_frozen, which can then run beside evaluate_quantized
    priority: 1
    threads: 2
    resources:
        mem_mb=growing(4000),
        runtime=60,
    conda:
        "../envs/tensorflow.yaml"
    script:
        "../scripts/quantize_reference.py"


rule import_quantized:
    message:
        "Take the quantized network {wildcards.model} from {params.source}."
    input:
        dataset=made.DATASET,
        source=lambda w: user_file(SETTINGS.model(w.model)["quantized"]),
    output:
        eval_graph=made.EVAL_GRAPH,
        model=made.QUANTIZED_MODEL,
        report=made.QUANTIZATION,
        nodes=made.KEPT_NODES,
    log:
        made.log(made.QUANTIZED, "import_quantized"),
    benchmark:
        made.times(made.QUANTIZED, "import_quantized")
    wildcard_constraints:
        model=SETTINGS.models_from("quantized"),
        quantizer=SETTINGS.named("quantizers", "tool", "reference"),
    params:
        answer=lambda w: SETTINGS.answer(w.model, w.dataset),
        model=lambda w: w.model,
        source=lambda w: SETTINGS.model(w.model)["quantized"],
        input_scaling=lambda w: SETTINGS.given_scaling(w.model),
    group:
        "int8"
    resources:
        mem_mb=growing(2000),
        runtime=10,
    conda:
        "../envs/onnx.yaml"
    script:
        "../scripts/import_quantized.py"


rule evaluate_quantized:
    message:
        "Measure the quantized graph of {wildcards.model} ({wildcards.quantizer}) on every test image."
    input:
        dataset=made.DATASET,
        graph=made.EVAL_GRAPH,
        nodes=lambda w: made.of(made.NODES if "frozen" in SETTINGS.stages(w.model) else made.KEPT_NODES, w),
        # how its pixels become its input a network that came quantized may say itself
        quantization=lambda w: ([] if "frozen" in SETTINGS.stages(w.model) else made.of(made.QUANTIZATION, w)),
    output:
        accuracy=made.QUANTIZED_ACCURACY,
    log:
        made.log(made.QUANTIZED, "evaluate_quantized"),
    benchmark:
        made.times(made.QUANTIZED, "evaluate_quantized")
    wildcard_constraints:
        quantizer=SETTINGS.named("quantizers", "tool", "reference"),
    params:
        answer=lambda w: SETTINGS.answer(w.model, w.dataset),
        decode=lambda w: SETTINGS.decode(w.model),
        input_scaling=lambda w: SETTINGS.input_scaling(w.model),
    group:
        "int8"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=30,
    conda:
        "../envs/tensorflow.yaml"
    script:
        "../scripts/evaluate_quantized.py"
