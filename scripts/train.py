"""Train a model of the configuration: dataset.h5 -> keras_trained_model.h5, history.csv."""

from dpuflow.base.files import write_text
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.keras_models.keras_file import save_model
from dpuflow.training.applications import Transfer
from dpuflow.training.model_builder import build_model
from dpuflow.training.targets import training_for
from dpuflow.training.trainer import history_csv, seed_everything, train
from dpuflow.workflow.scripting import run


def main(snakemake):
    dataset = read_dataset(snakemake.input.dataset)
    model_name = snakemake.params.model
    seed_everything(snakemake.params.seed, threads=snakemake.threads)
    classes = len(dataset.class_names)
    how = snakemake.params.training, snakemake.params.input_scaling, snakemake.params.seed
    application = snakemake.params.get("application")
    if application:
        transfer = Transfer(application, dataset.shape, classes, model_name)
        model = transfer.model
        history = transfer.train(how[0], (dataset.part("train"), dataset.part("validation")), *how[1:])
    else:
        model = build_model(snakemake.params.layers, dataset.shape, classes, model_name, dataset.task)
        decode, where = snakemake.params.get("decode"), f"models.{model_name}"
        objective, *parts = training_for(dataset, model, decode, where)
        history = train(model, *parts, *how, objective)
    save_model(model, snakemake.output.model)
    write_text(snakemake.output.history, history_csv(history))


run(main, globals())
