# {model}.xmodel -> predictions of the board, or of what stands in for it

APPLICATION = [str(relative(f"board/{name}")) for name in ("app.py", "board_info.py")]


def stage_records(w):
    """The accuracy records of a run, in the order of its stages."""
    model = f"results/{w.dataset}/{w.model}"
    stages = [] if SETTINGS.origin(w.model) == "frozen_pb" else [f"{model}/keras_accuracy.json"]
    return stages + [
        f"{model}/frozen_accuracy.json",
        f"{model}/{w.quantizer}/quantized_accuracy.json",
        f"{model}/{w.quantizer}/{w.target}/{w.runner}/board_accuracy.json",
    ]


rule run_emulator:
    message:
        "Run {wildcards.model}.xmodel on every test image in the bit-exact emulator ({wildcards.target})."
    input:
        code=code("run_emulator.py"),
        dataset="results/{dataset}/dataset.h5",
        xmodel="results/{dataset}/{model}/{quantizer}/{target}/{model}.xmodel",
        quantized="results/{dataset}/{model}/{quantizer}/quantized_accuracy.json",
    output:
        predictions="results/{dataset}/{model}/{quantizer}/{target}/{runner}/predictions.csv",
        accuracy="results/{dataset}/{model}/{quantizer}/{target}/{runner}/board_accuracy.json",
    log:
        "logs/{dataset}/{model}/{quantizer}/{target}/{runner}/run.log",
    benchmark:
        "benchmarks/jobs/{dataset}/{model}/{quantizer}/{target}/{runner}/run.tsv"
    wildcard_constraints:
        runner=SETTINGS.named("runners", "kind", "emulator"),
    threads: 2
    resources:
        mem_mb=2000,
        runtime=30,
    script:
        "../scripts/run_emulator.py"


rule run_isa_simulator:
    message:
        "Run the machine code of {wildcards.model}.xmodel in the instruction simulator ({wildcards.target})."
    input:
        code=code("run_isa_simulator.py"),
        dataset="results/{dataset}/dataset.h5",
        xmodel="results/{dataset}/{model}/{quantizer}/{target}/{model}.xmodel",
        quantized="results/{dataset}/{model}/{quantizer}/quantized_accuracy.json",
    output:
        predictions="results/{dataset}/{model}/{quantizer}/{target}/{runner}/predictions.csv",
        accuracy="results/{dataset}/{model}/{quantizer}/{target}/{runner}/board_accuracy.json",
    log:
        "logs/{dataset}/{model}/{quantizer}/{target}/{runner}/run.log",
    benchmark:
        "benchmarks/jobs/{dataset}/{model}/{quantizer}/{target}/{runner}/run.tsv"
    wildcard_constraints:
        runner=SETTINGS.named("runners", "kind", "isa_simulator"),
    threads: 2
    resources:
        mem_mb=4000,
        runtime=60,
    script:
        "../scripts/run_isa_simulator.py"


rule bundle:
    message:
        "Pack {wildcards.model}.xmodel, the test images and the application for {wildcards.target}."
    input:
        code=code("bundle.py"),
        application=APPLICATION,
        dataset="results/{dataset}/dataset.h5",
        xmodel="results/{dataset}/{model}/{quantizer}/{target}/{model}.xmodel",
    output:
        bundle="deploy/{target}/{dataset}.{model}.{quantizer}.tar",
    log:
        "logs/{dataset}/{model}/{quantizer}/{target}/bundle.log",
    benchmark:
        "benchmarks/jobs/{dataset}/{model}/{quantizer}/{target}/bundle.tsv"
    params:
        target=lambda w: SETTINGS.target(w.target),
        input_scaling=lambda w: SETTINGS.input_scaling(w.model),
    resources:
        mem_mb=1000,
        runtime=10,
    script:
        "../scripts/bundle.py"


rule run_virtual_board:
    message:
        "Run the board's application on the virtual board ({wildcards.model}, {wildcards.target})."
    input:
        code=code("run_virtual_board.py"),
        application=APPLICATION,
        bundle=rules.bundle.output.bundle,
        quantized="results/{dataset}/{model}/{quantizer}/quantized_accuracy.json",
    output:
        predictions="results/{dataset}/{model}/{quantizer}/{target}/{runner}/predictions.csv",
        report="results/{dataset}/{model}/{quantizer}/{target}/{runner}/board.json",
        accuracy="results/{dataset}/{model}/{quantizer}/{target}/{runner}/board_accuracy.json",
    log:
        "logs/{dataset}/{model}/{quantizer}/{target}/{runner}/run.log",
    benchmark:
        "benchmarks/jobs/{dataset}/{model}/{quantizer}/{target}/{runner}/run.tsv"
    wildcard_constraints:
        runner=SETTINGS.named("runners", "kind", "virtual_board"),
    params:
        target=lambda w: SETTINGS.target(w.target),
        options=lambda w: config["runners"][w.runner].get("options", {}),
    threads: 2
    resources:
        mem_mb=2000,
        runtime=30,
    script:
        "../scripts/run_virtual_board.py"


rule run_ssh:
    message:
        "Run {wildcards.model}.xmodel on a board of {wildcards.runner} over SSH ({wildcards.target})."
    input:
        code=code("run_ssh.py"),
        application=APPLICATION,
        bundle=rules.bundle.output.bundle,
        quantized="results/{dataset}/{model}/{quantizer}/quantized_accuracy.json",
    output:
        predictions="results/{dataset}/{model}/{quantizer}/{target}/{runner}/predictions.csv",
        report="results/{dataset}/{model}/{quantizer}/{target}/{runner}/board.json",
        accuracy="results/{dataset}/{model}/{quantizer}/{target}/{runner}/board_accuracy.json",
    log:
        "logs/{dataset}/{model}/{quantizer}/{target}/{runner}/run.log",
    benchmark:
        "benchmarks/jobs/{dataset}/{model}/{quantizer}/{target}/{runner}/run.tsv"
    wildcard_constraints:
        runner=SETTINGS.named("runners", "kind", "ssh"),
    params:
        target=lambda w: SETTINGS.target(w.target),
        runner=lambda w: config["runners"][w.runner],
    resources:
        mem_mb=1000,
        runtime=180,
        # no more jobs at a time than boards: the profile or --resources may say boards=N
        boards=1,
    script:
        "../scripts/run_ssh.py"


rule gate:
    message:
        "Judge the stages of {wildcards.model} on {wildcards.runner} by the allowed changes."
    input:
        code=code("gate.py"),
        dataset="results/{dataset}/dataset.h5",
        records=lambda w: stage_records(w),
    output:
        gate="results/{dataset}/{model}/{quantizer}/{target}/{runner}/gate.json",
    log:
        "logs/{dataset}/{model}/{quantizer}/{target}/{runner}/gate.log",
    benchmark:
        "benchmarks/jobs/{dataset}/{model}/{quantizer}/{target}/{runner}/gate.tsv"
    params:
        limits=config.get("gates", []),
    resources:
        mem_mb=500,
        runtime=5,
    script:
        "../scripts/gate.py"
