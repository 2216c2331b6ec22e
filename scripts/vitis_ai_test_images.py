"""The test split's images as a plain .npy file, for programs that run inside a container."""

from dpuflow.base.npy import write_npy
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    images = read_dataset(snakemake.input.dataset).images_in("test")
    write_npy(snakemake.output.images, images)
    log.info("%d test images", len(images))


run(main, globals())
