"""A user's own compiled xmodel -> {model}.xmodel: the same graph, its input scaling and answer named."""

from dpuflow.compiler.own_xmodel import prepared
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.device.targets import configured_target
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    dataset, params = read_dataset(snakemake.input.dataset), snakemake.params
    source = snakemake.input.get("source") or params.source  # no input where it is missing
    target = configured_target(snakemake.wildcards.target, params.target["hardware"])
    graph, notes = prepared(
        source,
        dataset.shape,
        len(dataset.class_names),
        params.input_scaling,
        target,
        params.output["node"],
        params.output["answer"],
    )
    graph.save(snakemake.output.xmodel, check=False)
    for note in notes:
        log.info("%s: %s", source, note)


run(main, globals())
