# quantized_model.h5 -> {model}.xmodel for a target

COMPILED_ORIGINS = (*FLOAT_ORIGINS, "quantized")


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
        model=SETTINGS.models_from(*COMPILED_ORIGINS),
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
        model=SETTINGS.models_from(*COMPILED_ORIGINS),
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


rule take_xmodel:
    message:
        "Take the compiled {wildcards.model} from {params.source}."
    input:
        dataset=made.DATASET,
        source=lambda w: user_file(SETTINGS.model(w.model)["xmodel"]),
    output:
        xmodel=made.XMODEL,
    log:
        made.log(made.COMPILED, "take_xmodel"),
    benchmark:
        made.times(made.COMPILED, "take_xmodel")
    wildcard_constraints:
        model=SETTINGS.models_from("xmodel"),
        target=SETTINGS.named("targets", "compiler", "reference", "native"),
    params:
        source=lambda w: SETTINGS.model(w.model)["xmodel"],
        target=lambda w: SETTINGS.target(w.target),
        input_scaling=lambda w: SETTINGS.given_scaling(w.model),
        output=lambda w: {
            "node": SETTINGS.model(w.model).get("output_node"),
            "answer": SETTINGS.answer(w.model, w.dataset),
        },
    group:
        "int8"
    resources:
        mem_mb=growing(2000),
        runtime=15,
    conda:
        "../envs/dpuflow.yaml"
    script:
        "../scripts/take_xmodel.py"
