"""Build dataset.h5 from picture files: images, labels, class names, split, origin.

params.entry is the dataset's config entry.
"""

from dpuflow.datasets.picture_dataset import build_picture_dataset
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    """Write output.dataset from the pictures of params.entry."""
    counts = build_picture_dataset(snakemake.output.dataset, snakemake.params.entry, snakemake.threads)
    log.info(", ".join(f"{name} {count}" for name, count in counts.items()))


run(main, globals())
