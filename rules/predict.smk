# A user's own pictures -> letters, by the emulated board of each run

from dpuflow.datasets.find_pictures import find_pictures

IMAGES = config.get("images") or config.get("predict", {}).get("images")

try:  # here and not in an input function, where Snakemake shows a traceback
    PICTURES = find_pictures(IMAGES) if IMAGES else []
except UserError as error:
    raise WorkflowError(str(error)) from None

# Snakemake reports it as the input file that is missing
NOT_GIVEN = "(predict.images is not given; name a folder: snakemake predict --config images=FOLDER)"


rule predict_pictures:
    message:
        "Run your pictures through {wildcards.model}.xmodel in the emulator ({wildcards.target})."
    input:
        dataset=made.DATASET,
        xmodel=made.XMODEL,
        images=lambda w: PICTURES or NOT_GIVEN,
    output:
        predictions=made.PREDICTED,
        skipped=made.SKIPPED_PICTURES,
        page=report(
            made.PREDICTED_PAGE,
            caption="../report/predictions.rst",
            category="Own pictures",
            labels={
                "data set": "{dataset}",
                "model": "{model}",
                "quantizer": "{quantizer}",
                "target": "{target}",
            },
        ),
    log:
        made.log(f"predict/{made.COMPILED}", "predict"),
    benchmark:
        made.times(f"predict/{made.COMPILED}", "predict")
    params:
        run=lambda w: dict(w.items()),
        answer=lambda w: SETTINGS.answer(w.model, w.dataset),
        decode=lambda w: SETTINGS.decode(w.model),
        top=config.get("predict", {}).get("top", 3),
        invert=config.get("predict", {}).get("invert", False),
    threads: 2
    resources:
        mem_mb=growing(2000),
        runtime=15,
    conda:
        "../envs/dpuflow.yaml"
    script:
        "../scripts/predict.py"


# like the gates: pictures that cannot be read make a job fail, and the answers for the others are there to be read
rule accept_pictures:
    message:
        "See that no picture was left out."
    input:
        skipped=sorted({made.of(made.SKIPPED_PICTURES, run) for run in RUNS}),
    output:
        accepted=made.ACCEPTED_PICTURES,
    log:
        made.log("predict", "accept_pictures"),
    benchmark:
        made.times("predict", "accept_pictures")
    resources:
        mem_mb=growing(500),
        runtime=5,
    conda:
        "../envs/dpuflow.yaml"
    script:
        "../scripts/accept_pictures.py"


rule predict:
    message:
        "The answers for your pictures are in results/predict/."
    input:
        sorted({made.of(made.PREDICTED_PAGE, run) for run in RUNS}),
        made.ACCEPTED_PICTURES,
        # here, too: without pictures the answers for those of last time would pass for good
        [] if PICTURES else NOT_GIVEN,
