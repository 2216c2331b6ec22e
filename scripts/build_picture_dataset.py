"""Build dataset.h5 from picture files: images, labels (or boxes, or masks), class names, split, origin.

params.entry is the dataset's config entry.
"""

from dpuflow.datasets.annotated_dataset import build_annotated_dataset
from dpuflow.datasets.picture_dataset import build_picture_dataset
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    """Write output.dataset from the pictures of params.entry."""
    entry = snakemake.params.entry
    build = build_annotated_dataset if "annotations" in entry else build_picture_dataset
    counts = build(snakemake.output.dataset, entry, snakemake.threads)
    log.info(", ".join(f"{name} {count}" for name, count in counts.items()))


run(main, globals())
