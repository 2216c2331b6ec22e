"""{model}.xmodel + test images + board application -> one reproducible tar for the board."""

from dpuflow.board.bundle import Bundle, build
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.device.targets import configured_target
from dpuflow.workflow.board_runs import task_for_board
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    name = snakemake.wildcards.target
    target = configured_target(name, snakemake.params.target["hardware"])
    dataset = read_dataset(snakemake.input.dataset)
    xmodel = snakemake.input.xmodel
    build(
        snakemake.output.bundle,
        xmodel,
        dataset.images_in("test"),
        dataset.labels_in("test") if dataset.task == "classification" else None,
        dataset.class_names,
        target,
        "test",
        scaling=snakemake.params.get("input_scaling"),
        answer=snakemake.params.get("answer"),
        **task_for_board(dataset, xmodel, snakemake.params.get("decode")),
    )
    meta = Bundle.open(snakemake.output.bundle).meta
    log.info(
        "%d images for %s (%s), %d bytes of DPU instructions",
        meta["images"]["count"],
        name,
        meta["fingerprint"],
        meta["instructions"],
    )


run(main, globals())
