"""What the trained H5 answers for every test image -> keras_accuracy.json."""

from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.keras_models.outputs import KerasStage
from dpuflow.task.measuring import stage_record
from dpuflow.workflow.scripting import run
from dpuflow.workflow.stage_records import told, write_stage


def main(snakemake):
    dataset, scaling = read_dataset(snakemake.input.dataset), snakemake.params.input_scaling
    stage = KerasStage(snakemake.input.model, scaling, threads=snakemake.threads)
    record = stage_record("keras", stage, dataset, told(snakemake.params), where=snakemake.input.model)
    write_stage(snakemake.output.accuracy, record, scaling)


run(main, globals())
