# {model}.xmodel -> predictions of the board, or of what stands in for it


rule run_emulator:
    message:
        "Run {wildcards.model}.xmodel on every test image in the bit-exact emulator ({wildcards.target})."
    input:
        dataset=made.DATASET,
        xmodel=made.XMODEL,
        quantized=quantized_before,
    output:
        predictions=made.PREDICTIONS,
        accuracy=made.BOARD_ACCURACY,
    log:
        made.log(made.RUN, "run"),
    benchmark:
        made.times(made.RUN, "run")
    wildcard_constraints:
        runner=SETTINGS.named("runners", "kind", "emulator"),
    params:
        answer=lambda w: SETTINGS.answer(w.model, w.dataset),
        decode=lambda w: SETTINGS.decode(w.model),
    group:
        "int8"
    threads: 2
    resources:
        mem_mb=growing(2000),
        runtime=30,
    conda:
        "../envs/test.yaml"
    script:
        "../scripts/run_emulator.py"


rule run_isa_simulator:
    message:
        "Run the machine code of {wildcards.model}.xmodel in the instruction simulator ({wildcards.target})."
    input:
        dataset=made.DATASET,
        xmodel=made.XMODEL,
        quantized=quantized_before,
    output:
        predictions=made.PREDICTIONS,
        accuracy=made.BOARD_ACCURACY,
    log:
        made.log(made.RUN, "run"),
    benchmark:
        made.times(made.RUN, "run")
    wildcard_constraints:
        runner=SETTINGS.named("runners", "kind", "isa_simulator"),
    params:
        answer=lambda w: SETTINGS.answer(w.model, w.dataset),
        decode=lambda w: SETTINGS.decode(w.model),
    group:
        "int8"
    threads: 2
    resources:
        mem_mb=growing(4000),
        runtime=60,
    conda:
        "../envs/test.yaml"
    script:
        "../scripts/run_isa_simulator.py"


rule bundle:
    message:
        "Pack {wildcards.model}.xmodel, the test images and the application for {wildcards.target}."
    input:
        dataset=made.DATASET,
        xmodel=made.XMODEL,
    output:
        bundle="deploy/{target}/{dataset}.{model}.{quantizer}.tar",
    log:
        made.log(made.COMPILED, "bundle"),
    benchmark:
        made.times(made.COMPILED, "bundle")
    params:
        answer=lambda w: SETTINGS.answer(w.model, w.dataset),
        decode=lambda w: SETTINGS.decode(w.model),
        target=lambda w: SETTINGS.target(w.target),
        # what enters quantized or compiled has it in the xmodel
        input_scaling=lambda w: (
            SETTINGS.input_scaling(w.model) if "frozen" in SETTINGS.stages(w.model) else {}
        ),
    group:
        "int8"
    resources:
        mem_mb=growing(1000),
        runtime=10,
    conda:
        "../envs/dpuflow.yaml"
    script:
        "../scripts/bundle.py"


rule run_virtual_board:
    message:
        "Run the board's application on the virtual board ({wildcards.model}, {wildcards.target})."
    input:
        bundle=rules.bundle.output.bundle,
        dataset=judged_by,
        quantized=quantized_before,
    output:
        predictions=made.PREDICTIONS,
        report=made.BOARD_RECORD,
        accuracy=made.BOARD_ACCURACY,
    log:
        made.log(made.RUN, "run"),
    benchmark:
        made.times(made.RUN, "run")
    wildcard_constraints:
        runner=SETTINGS.named("runners", "kind", "virtual_board"),
    params:
        target=lambda w: SETTINGS.target(w.target),
        options=lambda w: config["runners"][w.runner].get("options", {}),
    group:
        "int8"
    threads: 2
    resources:
        mem_mb=growing(2000),
        runtime=30,
    conda:
        "../envs/test.yaml"
    script:
        "../scripts/run_virtual_board.py"


rule run_ssh:
    message:
        "Run {wildcards.model}.xmodel on a board of {wildcards.runner} over SSH ({wildcards.target})."
    input:
        bundle=rules.bundle.output.bundle,
        dataset=judged_by,
        quantized=quantized_before,
    output:
        predictions=made.PREDICTIONS,
        report=made.BOARD_RECORD,
        accuracy=made.BOARD_ACCURACY,
    log:
        made.log(made.RUN, "run"),
    benchmark:
        made.times(made.RUN, "run")
    wildcard_constraints:
        runner=SETTINGS.named("runners", "kind", "ssh"),
    params:
        target=lambda w: SETTINGS.target(w.target),
        runner=lambda w: config["runners"][w.runner],
    resources:
        mem_mb=growing(1000),
        runtime=180,
        # no more jobs at a time than boards: the profile or --resources may say boards=N
        boards=1,
    conda:
        "../envs/test.yaml"
    script:
        "../scripts/run_ssh.py"


rule gate:
    message:
        "Judge the stages of {wildcards.model} on {wildcards.runner} by the allowed changes."
    input:
        dataset=made.DATASET,
        records=lambda w: run_files.stage_records(SETTINGS, w),
    output:
        gate=made.GATE,
    log:
        made.log(made.RUN, "gate"),
    benchmark:
        made.times(made.RUN, "gate")
    params:
        limits=config.get("gates", []),
    resources:
        mem_mb=growing(500),
        runtime=5,
    conda:
        "../envs/dpuflow.yaml"
    script:
        "../scripts/gate.py"
