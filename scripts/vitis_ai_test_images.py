"""The test split's images as a plain .npy file, for programs that run inside a container."""

from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.vitis_ai.bundle import write_images
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    images, _ = read_dataset(snakemake.input.dataset).subset("test")
    write_images(snakemake.output.images, images)
    log.info("%d test images", len(images))


run(main, globals())
