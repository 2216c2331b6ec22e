# {model}.xmodel -> predictions of the board, or of what stands in for it


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
