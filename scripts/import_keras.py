"""A user's own trained H5 model -> keras_trained_model.h5: rebuilt for inference on this data set."""

from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.keras_models.keras_file import save_model
from dpuflow.keras_models.keras_import import import_model
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    dataset = read_dataset(snakemake.input.dataset)
    source = snakemake.input.get("source") or snakemake.params.source  # no input where it is missing
    model, notes = import_model(
        source, dataset.shape, len(dataset.class_names), snakemake.params.get("answer")
    )
    for note in notes:
        log.info("%s: %s", source, note)
    save_model(model, snakemake.output.model)
    log.info("%s: %d parameters", source, model.count_params())


run(main, globals())
