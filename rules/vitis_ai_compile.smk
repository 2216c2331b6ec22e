# The vendor's compilers vai_c_* in their containers (Vitis AI): what vitis_ai.smk says holds here, too.


rule vitis_ai_arch:
    message:
        "Write arch.json for {wildcards.target}."
    output:
        arch=made.ARCH,
    log:
        made.log(made.COMPILED, "vitis_ai_arch"),
    wildcard_constraints:
        target=VENDOR_COMPILERS,
    params:
        hardware=lambda w: SETTINGS.target(w.target)["hardware"],
    group:
        "int8"
    resources:
        mem_mb=growing(500),
        runtime=5,
    conda:
        "../envs/dpuflow.yaml"
    script:
        "../scripts/vitis_ai_arch.py"


rule export_quantized:
    message:
        "Write the quantized, not yet compiled xmodel of {wildcards.model} for vai_c_xir."
    input:
        model=made.QUANTIZED_MODEL,
    output:
        quantized=made.QUANTIZED_XMODEL,
    log:
        made.log(made.COMPILED, "export_quantized"),
    wildcard_constraints:
        target=SETTINGS.named("targets", "compiler", "vai_c_xir"),
    params:
        target=lambda w: SETTINGS.target(w.target),
    group:
        "int8"
    resources:
        mem_mb=growing(1000),
        runtime=10,
    conda:
        "../envs/dpuflow.yaml"
    script:
        "../scripts/export_quantized.py"


COMPILED = f"results/{made.COMPILED}"
COMPILE_LOG = made.log(made.COMPILED, "compile")
COMPILE_BENCHMARK = made.times(made.COMPILED, "compile")


rule compile_vai_c_tensorflow:
    message:
        "Compile {wildcards.model} for {wildcards.target} with the vendor's vai_c_tensorflow."
    input:
        model=made.EVAL_GRAPH,
        arguments=rules.vitis_ai_bundle.output.arguments,
        arch=written_arch,
    output:
        xmodel=f"{COMPILED}/vitis_ai/{{model}}.xmodel",
        log=f"{COMPILED}/vitis_ai/compile.log",
    log:
        COMPILE_LOG,
    benchmark:
        COMPILE_BENCHMARK
    wildcard_constraints:
        quantizer=SETTINGS.named("quantizers", "tool", "vai_q_tensorflow"),
        target=SETTINGS.named("targets", "compiler", "vai_c_tensorflow"),
    params:
        enter=releases.enter("vai_c_tensorflow"),
        arch=lambda w: container_arch(w) or written_arch(w),
        folder=f"{COMPILED}/vitis_ai",
        # a frozen graph leaves the batch open; the compiler wants it
        options=lambda w: json.dumps(compiler_options(w) | {"input_shape": "INPUT_SHAPE"}, sort_keys=True),
    group:
        "int8"
    resources:
        mem_mb=growing(4000),
        runtime=60,
    container:
        compiler_image
    shell:
        """
        (
        {params.enter}
        . {input.arguments:q}
        options={params.options:q}
        vai_c_tensorflow --frozen_pb {input.model:q} --arch {params.arch:q} --output_dir {params.folder:q} \
            --net_name {wildcards.model:q} --options "${{options/INPUT_SHAPE/$compile_shape}}"
        ) > {log:q} 2>&1
        cp -- {log:q} {output.log:q}
        """


rule compile_vai_c_tensorflow2:
    message:
        "Compile {wildcards.model} for {wildcards.target} with the vendor's vai_c_tensorflow2."
    input:
        model=made.QUANTIZED_MODEL,
        arch=written_arch,
    output:
        xmodel=f"{COMPILED}/vitis_ai/{{model}}.xmodel",
        log=f"{COMPILED}/vitis_ai/compile.log",
    log:
        COMPILE_LOG,
    benchmark:
        COMPILE_BENCHMARK
    wildcard_constraints:
        quantizer=SETTINGS.named("quantizers", "tool", "vai_q_tensorflow2"),
        target=SETTINGS.named("targets", "compiler", "vai_c_tensorflow2"),
    params:
        enter=releases.enter("vai_c_tensorflow2"),
        arch=lambda w: container_arch(w) or written_arch(w),
        folder=f"{COMPILED}/vitis_ai",
        options=compiler_option_words,
    group:
        "int8"
    resources:
        mem_mb=growing(4000),
        runtime=60,
    container:
        compiler_image
    shell:
        """
        (
        {params.enter}
        vai_c_tensorflow2 -m {input.model:q} -a {params.arch:q} -o {params.folder:q} \
            -n {wildcards.model:q} {params.options}
        ) > {log:q} 2>&1
        cp -- {log:q} {output.log:q}
        """


rule compile_vai_c_xir:
    message:
        "Compile our quantized {wildcards.model} for {wildcards.target} with the vendor's vai_c_xir."
    input:
        model=rules.export_quantized.output.quantized,
        arch=written_arch,
    output:
        xmodel=f"{COMPILED}/vitis_ai/{{model}}.xmodel",
        log=f"{COMPILED}/vitis_ai/compile.log",
    log:
        COMPILE_LOG,
    benchmark:
        COMPILE_BENCHMARK
    wildcard_constraints:
        quantizer=SETTINGS.named("quantizers", "tool", "reference"),
        target=SETTINGS.named("targets", "compiler", "vai_c_xir"),
    params:
        enter=releases.enter("vai_c_xir"),
        arch=lambda w: container_arch(w) or written_arch(w),
        folder=f"{COMPILED}/vitis_ai",
        options=compiler_option_words,
    group:
        "int8"
    resources:
        mem_mb=growing(4000),
        runtime=60,
    container:
        compiler_image
    shell:
        """
        (
        {params.enter}
        vai_c_xir -x {input.model:q} -a {params.arch:q} -o {params.folder:q} \
            -n {wildcards.model:q} {params.options}
        ) > {log:q} 2>&1
        cp -- {log:q} {output.log:q}
        """


rule record_vai_c:
    message:
        "Check what the vendor's compiler made of {wildcards.model} for {wildcards.target}."
    input:
        xmodel=f"{COMPILED}/vitis_ai/{{model}}.xmodel",
        log=f"{COMPILED}/vitis_ai/compile.log",
    output:
        xmodel=f"{COMPILED}/{{model}}.xmodel",
        report=f"{COMPILED}/compile.json",
    log:
        made.log(made.COMPILED, "record_vai_c"),
    wildcard_constraints:
        target=VENDOR_COMPILERS,
    params:
        target=lambda w: SETTINGS.target(w.target),
        arch=lambda w: container_arch(w) or "arch.json by dpuflow",
        input_scaling=lambda w: SETTINGS.input_scaling(w.model),
    group:
        "int8"
    resources:
        mem_mb=growing(1000),
        runtime=10,
    conda:
        "../envs/test.yaml"
    script:
        "../scripts/record_vai_c.py"
