# The vendor's toolchain (Vitis AI) in its containers: quantizers vai_q_*, compilers vai_c_*. Needs --sdm apptainer.
#
# Only `shell:` runs inside a container, as `script:` would need this project's Python there. What the tools are
# handed and what is made of their logs is done outside, by scripts.


rule vitis_ai_bundle:
    message:
        "Write the calibration images of {wildcards.model} and the module that reads them ({wildcards.quantizer})."
    input:
        dataset=made.DATASET,
        nodes=made.NODES,
    output:
        images=f"{BUNDLE}/calibration_images.npy",
        module=f"{BUNDLE}/calibration_input.py",
        arguments=f"{BUNDLE}/arguments.sh",
        programs=[f"{BUNDLE}/{name}" for name in programs.NAMES],
    log:
        made.log(made.QUANTIZED, "vitis_ai_bundle"),
    wildcard_constraints:
        quantizer=VENDOR_QUANTIZERS,
    params:
        calibration=lambda w: config["quantizers"][w.quantizer].get("calibration", {}),
        input_scaling=lambda w: SETTINGS.input_scaling(w.model),
    group:
        "int8"
    resources:
        mem_mb=growing(1000),
        runtime=10,
    conda:
        "../envs/dpuflow.yaml"
    script:
        "../scripts/vitis_ai_bundle.py"


rule vitis_ai_test_images:
    message:
        "Write the test images of {wildcards.dataset} for programs inside containers."
    input:
        dataset=made.DATASET,
    output:
        images=made.TEST_IMAGES,
    log:
        made.log(made.DATA, "vitis_ai_test_images"),
    group:
        "data"
    resources:
        mem_mb=growing(1000),
        runtime=10,
    conda:
        "../envs/dpuflow.yaml"
    script:
        "../scripts/vitis_ai_test_images.py"


rule quantize_vai_q_tensorflow:
    message:
        "Quantize {wildcards.model} with the vendor's vai_q_tensorflow ({wildcards.quantizer})."
    input:
        graph=made.FROZEN_GRAPH,
        images=rules.vitis_ai_bundle.output.images,
        module=rules.vitis_ai_bundle.output.module,
        arguments=rules.vitis_ai_bundle.output.arguments,
    output:
        eval_graph=made.EVAL_GRAPH,
        log=f"{BUNDLE}/quantize.log",
    log:
        made.log(made.QUANTIZED, "quantize"),
    benchmark:
        made.times(made.QUANTIZED, "quantize")
    wildcard_constraints:
        quantizer=SETTINGS.named("quantizers", "tool", "vai_q_tensorflow"),
    params:
        enter=releases.enter("vai_q_tensorflow"),
        bundle=lambda w, input: os.path.dirname(input.module),
        options=lambda w: option_words(config["quantizers"][w.quantizer].get("options", {})),
    group:
        "int8"
    threads: 2
    resources:
        mem_mb=growing(8000),
        runtime=120,
    container:
        quantizer_image
    shell:
        """
        (
        {params.enter}
        . {input.arguments:q}
        PYTHONPATH={params.bundle:q} vai_q_tensorflow quantize \
            --input_frozen_graph {input.graph:q} --input_nodes "$input_node" --input_shapes "$input_shape" \
            --output_nodes "$output_node" --input_fn calibration_input.calibration_input \
            --calib_iter "$calib_iter" --output_dir {params.bundle:q}/quantize_results {params.options}
        mv -- {params.bundle:q}/quantize_results/quantize_eval_model.pb {output.eval_graph:q}
        ) > {log:q} 2>&1
        cp -- {log:q} {output.log:q}
        """


rule quantize_vai_q_tensorflow2:
    message:
        "Quantize {wildcards.model} with the vendor's vai_q_tensorflow2 ({wildcards.quantizer})."
    input:
        program=f"{BUNDLE}/quantize_keras.py",
        model=made.KERAS_MODEL,
        images=rules.vitis_ai_bundle.output.images,
        module=rules.vitis_ai_bundle.output.module,
    output:
        model=made.QUANTIZED_MODEL,
        log=f"{BUNDLE}/quantize.log",
    log:
        made.log(made.QUANTIZED, "quantize"),
    benchmark:
        made.times(made.QUANTIZED, "quantize")
    wildcard_constraints:
        quantizer=SETTINGS.named("quantizers", "tool", "vai_q_tensorflow2"),
        model=SETTINGS.models_from("layers", "application", "keras_h5"),
    params:
        enter=releases.enter("vai_q_tensorflow2"),
        options=lambda w: json.dumps(config["quantizers"][w.quantizer].get("options", {}), sort_keys=True),
    group:
        "int8"
    threads: 2
    resources:
        mem_mb=growing(8000),
        runtime=120,
    container:
        quantizer_image
    shell:
        """
        (
        {params.enter}
        python {input.program:q} --model {input.model:q} --calibration {input.module:q} \
            --options {params.options:q} --output {output.model:q}
        ) > {log:q} 2>&1
        cp -- {log:q} {output.log:q}
        """


rule record_vai_q:
    message:
        "Read the positions and the log of {wildcards.quantizer} for {wildcards.model}."
    input:
        dataset=made.DATASET,
        nodes=made.NODES,
        model=quantized_by_vendor,
        log=f"{BUNDLE}/quantize.log",
    output:
        report=made.QUANTIZATION,
    log:
        made.log(made.QUANTIZED, "record_vai_q"),
    wildcard_constraints:
        quantizer=VENDOR_QUANTIZERS,
    params:
        entry=lambda w: config["quantizers"][w.quantizer],
        input_scaling=lambda w: SETTINGS.input_scaling(w.model),
    group:
        "int8"
    resources:
        mem_mb=growing(1000),
        runtime=10,
    conda:
        "../envs/test.yaml"
    script:
        "../scripts/record_vai_q.py"


rule predict_vai_q_tensorflow:
    message:
        "Run the graph of vai_q_tensorflow on every test image ({wildcards.model}, {wildcards.quantizer})."
    input:
        program=f"{BUNDLE}/predict_frozen.py",
        graph=made.EVAL_GRAPH,
        arguments=rules.vitis_ai_bundle.output.arguments,
        images=made.TEST_IMAGES,
    output:
        outputs=f"{BUNDLE}/test_outputs.npy",
    log:
        made.log(made.QUANTIZED, "predict"),
    benchmark:
        made.times(made.QUANTIZED, "predict")
    wildcard_constraints:
        quantizer=SETTINGS.named("quantizers", "tool", "vai_q_tensorflow"),
    params:
        enter=releases.enter("vai_q_tensorflow"),
        subtract=lambda w: SETTINGS.input_scaling(w.model)["subtract"],
        divide=lambda w: SETTINGS.input_scaling(w.model)["divide"],
        order=lambda w: SETTINGS.input_scaling(w.model).get("order", "rgb"),
    group:
        "int8"
    threads: 2
    resources:
        mem_mb=growing(4000),
        runtime=60,
    container:
        quantizer_image
    shell:
        """
        (
        {params.enter}
        . {input.arguments:q}
        python {input.program:q} --graph {input.graph:q} --input-node "$input_node" \
            --output-node "$output_node" --images {input.images:q} \
            --subtract {params.subtract:q} --divide {params.divide:q} --order {params.order:q} --output {output.outputs:q}
        ) > {log:q} 2>&1
        """


rule predict_vai_q_tensorflow2:
    message:
        "Run the model of vai_q_tensorflow2 on every test image ({wildcards.model}, {wildcards.quantizer})."
    input:
        program=f"{BUNDLE}/predict_keras.py",
        model=made.QUANTIZED_MODEL,
        images=made.TEST_IMAGES,
    output:
        outputs=f"{BUNDLE}/test_outputs.npy",
    log:
        made.log(made.QUANTIZED, "predict"),
    benchmark:
        made.times(made.QUANTIZED, "predict")
    wildcard_constraints:
        quantizer=SETTINGS.named("quantizers", "tool", "vai_q_tensorflow2"),
    params:
        enter=releases.enter("vai_q_tensorflow2"),
        subtract=lambda w: SETTINGS.input_scaling(w.model)["subtract"],
        divide=lambda w: SETTINGS.input_scaling(w.model)["divide"],
        order=lambda w: SETTINGS.input_scaling(w.model).get("order", "rgb"),
    group:
        "int8"
    threads: 2
    resources:
        mem_mb=growing(4000),
        runtime=60,
    container:
        quantizer_image
    shell:
        """
        (
        {params.enter}
        python {input.program:q} --model {input.model:q} --images {input.images:q} \
            --subtract {params.subtract:q} --divide {params.divide:q} --order {params.order:q} --output {output.outputs:q}
        ) > {log:q} 2>&1
        """


rule evaluate_vai_q:
    message:
        "Measure what {wildcards.quantizer} made of {wildcards.model} on every test image."
    input:
        dataset=made.DATASET,
        outputs=f"{BUNDLE}/test_outputs.npy",
    output:
        accuracy=made.QUANTIZED_ACCURACY,
    log:
        made.log(made.QUANTIZED, "evaluate_quantized"),
    wildcard_constraints:
        quantizer=VENDOR_QUANTIZERS,
    group:
        "int8"
    resources:
        mem_mb=growing(1000),
        runtime=10,
    conda:
        "../envs/test.yaml"
    script:
        "../scripts/evaluate_outputs.py"
