"""network.h5 -> INT8 by the reference quantizer: model, evaluation graph, report."""

from dpuflow.base.errors import about
from dpuflow.base.outputs import NONE, named_ends
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.network.network_file import load_network
from dpuflow.quantize.reference import quantize, write_artifacts
from dpuflow.records import read_record
from dpuflow.task.judging import judge_of
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    dataset = read_dataset(snakemake.input.dataset)
    nodes = read_record(snakemake.input.nodes, "nodes.schema.yaml")
    named = dataset.task == "classification" and snakemake.params.get("answer") != NONE
    settings = {key: value for key, value in snakemake.params.settings.items() if key != "tool"}
    networks = [load_network(snakemake.input.network)]
    with about(snakemake.input.network):
        judge = judge_of(dataset, "validation", networks[0], snakemake.params.get("decode"))
        quantized, report = quantize(
            networks.pop(),  # nobody else holds its weights
            dataset.images_in("calibration"),
            settings,
            snakemake.params.input_scaling,
            output_name={name: end["name"] for name, end in named_ends(nodes).items()},
            calibration_indices=dataset.splits["calibration"],
            calibration_labels=dataset.labels_in("calibration") if named else None,
            test_images=(images for images, _ in dataset.batches("test")),
            validation=(
                dataset.images_in("validation"),
                dataset.labels_in("validation") if named else None,
            ),
            judge=judge,
            threads=snakemake.threads,
        )
    if snakemake.input.get("finetune"):
        report["training_further"] = read_record(snakemake.input.finetune, "finetune.schema.yaml")
    write_artifacts(
        quantized, report, snakemake.output.model, snakemake.output.eval_graph, snakemake.output.report
    )
    for step in report["steps"]:
        outcome = "" if step.get("kept", True) else " (not kept: no gain)"
        log.info(
            "%s: logits diverge by %.2g, %.2f %% of predictions as in float%s",
            step["step"],
            step["divergence"],
            100 * step["agreement"],
            outcome,
        )
    for change in report["adjustments"]:
        log.info("adjusted %(tensor)s from %(from)d to %(to)d: %(why)s", change)
    log.info(
        "quantized %s, calibrated on %d training images",
        quantized.network.name,
        report["calibration"]["images"],
    )


run(main, globals())
