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
        quantizer=SETTINGS.named("quantizers", "tool", "reference"),
    params:
        settings=lambda w: config["quantizers"][w.quantizer],
        steps=lambda w: steps(config["quantizers"][w.quantizer]),
        input_scaling=lambda w: SETTINGS.input_scaling(w.model),
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


rule evaluate_quantized:
    message:
        "Measure the quantized graph of {wildcards.model} ({wildcards.quantizer}) on every test image."
    input:
        dataset=made.DATASET,
        graph=made.EVAL_GRAPH,
        nodes=made.NODES,
    output:
        accuracy=made.QUANTIZED_ACCURACY,
    log:
        made.log(made.QUANTIZED, "evaluate_quantized"),
    benchmark:
        made.times(made.QUANTIZED, "evaluate_quantized")
    wildcard_constraints:
        quantizer=SETTINGS.named("quantizers", "tool", "reference"),
    params:
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
