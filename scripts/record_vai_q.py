"""Log and output of a vendor's quantizer -> quantization.json."""

from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.records import read_record, write_record
from dpuflow.vitis_ai.bundle import chosen_images
from dpuflow.vitis_ai.records import quantization_record
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    dataset = read_dataset(snakemake.input.dataset)
    images, labels = dataset.subset("calibration")
    entry = snakemake.params.entry
    images = chosen_images(images, entry.get("calibration", {}))
    record = quantization_record(
        entry,
        read_record(snakemake.input.nodes, "nodes.schema.yaml"),
        snakemake.params.input_scaling,
        snakemake.input.model,
        snakemake.input.log,
        images,
        dataset.splits["calibration"][: len(images)],
        labels[: len(images)],
    )
    write_record(snakemake.output.report, "quantization.schema.yaml", record)
    for change in record["adjustments"]:
        log.info("%(tensor)s: fix_point adjusted from %(from)d to %(to)d (%(why)s)", change)
    for warning in record["warnings"]:
        log.info("%s warns: %s", entry["tool"], warning)
    log.info("%d quantized layers", len(record["layers"]))


run(main, globals())
