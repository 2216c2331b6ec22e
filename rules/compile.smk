# quantized_model.h5 -> {model}.xmodel for a target


rule compile_reference:
    message:
        "Compile {wildcards.model} for {wildcards.target} (a DPU graph without instructions)."
    input:
        model=made.QUANTIZED_MODEL,
    output:
        xmodel=made.XMODEL,
        quantized=made.QUANTIZED_XMODEL,
        report=made.COMPILE_REPORT,
    log:
        made.log(made.COMPILED, "compile"),
    benchmark:
        made.times(made.COMPILED, "compile")
    wildcard_constraints:
        target=SETTINGS.named("targets", "compiler", "reference"),
    params:
        target=lambda w: SETTINGS.target(w.target),
    group:
        "int8"
    resources:
        mem_mb=growing(1000),
        runtime=15,
    conda:
        "../envs/dpuflow.yaml"
    script:
        "../scripts/compile_reference.py"


rule compile_native:
    message:
        "Compile {wildcards.model} for {wildcards.target} to machine code of our own."
    input:
        dataset=made.DATASET,
        model=made.QUANTIZED_MODEL,
    output:
        xmodel=made.XMODEL,
        quantized=made.QUANTIZED_XMODEL,
        report=made.COMPILE_REPORT,
    log:
        made.log(made.COMPILED, "compile"),
    benchmark:
        made.times(made.COMPILED, "compile")
    wildcard_constraints:
        target=SETTINGS.named("targets", "compiler", "native"),
    params:
        target=lambda w: SETTINGS.target(w.target),
    group:
        "int8"
    resources:
        mem_mb=growing(2000),
        runtime=30,
    conda:
        "../envs/dpuflow.yaml"
    script:
        "../scripts/compile_native.py"
