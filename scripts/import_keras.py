"""A user's own trained H5 model -> keras_trained_model.h5, checked against the data set."""

import shutil

from dpuflow.base.files import atomic_path
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.keras_models.foreign_model import check_fits
from dpuflow.keras_models.keras_file import load_model
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    dataset = read_dataset(snakemake.input.dataset)
    source = snakemake.input.source
    model = load_model(source)
    check_fits(
        source,
        [tuple(t.shape[1:]) for t in model.inputs],
        [tuple(t.shape[1:]) for t in model.outputs],
        dataset.images.shape[1:],
        len(dataset.class_names),
    )
    with atomic_path(snakemake.output.model) as temporary:
        shutil.copyfile(source, temporary)
    log.info("%s: %d parameters", source, model.count_params())


run(main, globals())
