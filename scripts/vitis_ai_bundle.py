"""What a vendor's quantizer is handed: calibration images, their input function, arguments, programs."""

from dpuflow.base.files import write_bytes
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.quantize.calibration_images import refuse_test_images
from dpuflow.records import read_record
from dpuflow.vitis_ai import programs
from dpuflow.vitis_ai.bundle import DEFAULT_BATCH, chosen_images, write_bundle
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    dataset = read_dataset(snakemake.input.dataset)
    images = chosen_images(dataset.subset("calibration")[0], snakemake.params.calibration)
    refuse_test_images(images, (some for some, _ in dataset.batches("test")))
    write_bundle(
        snakemake.output.images,
        snakemake.output.module,
        snakemake.output.arguments,
        images,
        snakemake.params.calibration.get("batch", DEFAULT_BATCH),
        read_record(snakemake.input.nodes, "nodes.schema.yaml"),
        snakemake.params.input_scaling,
    )
    for name, copy in zip(programs.NAMES, snakemake.output.programs, strict=True):
        write_bytes(copy, (programs.FOLDER / name).read_bytes())
    log.info("%d calibration images", len(images))


run(main, globals())
