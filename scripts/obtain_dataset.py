"""Obtain and verify a dataset's train.csv and test.csv.

params.entry is the dataset's config entry (source, image, class_names).
"""

from dpuflow.datasets.sources import obtain
from dpuflow.workflow.scripting import run


def main(snakemake):
    """Write output.train and output.test."""
    obtain(snakemake.params.entry, snakemake.output.train, snakemake.output.test, snakemake.threads)


run(main, globals())
