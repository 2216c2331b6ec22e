"""Build dataset.h5 from the two CSV files: images, labels, split, origin.

params.entry is the dataset's config entry (image, class_names, validation,
calibration, duplicates).
"""

import logging

from dpuflow.base.files import sha256
from dpuflow.datasets.dataset_file import build_dataset
from dpuflow.datasets.image_csv import ImageShape
from dpuflow.datasets.labels import labels_of
from dpuflow.datasets.sources import known_as
from dpuflow.workflow.scripting import run


def main(snakemake):
    """Write output.dataset from input.train and input.test."""
    entry = snakemake.params.entry
    files = {"train": snakemake.input.train, "test": snakemake.input.test}
    digests = {part: sha256(path) for part, path in files.items()}
    counts = build_dataset(
        snakemake.output.dataset,
        files["train"],
        files["test"],
        labels_of(entry.get("class_names")),
        shape=ImageShape.of_config(entry.get("image")),
        validation=entry.get("validation"),
        calibration=entry.get("calibration"),
        duplicate_policy=entry.get("duplicates", "warn"),
        origins={part: (digest, known_as(digest)) for part, digest in digests.items()},
    )
    log = logging.getLogger("dpuflow")
    log.info(", ".join(f"{name} {count}" for name, count in counts.items()))


run(main, globals())
