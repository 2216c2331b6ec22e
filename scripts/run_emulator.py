"""Run the xmodel file on every test image in the emulator -> predictions.csv, board_accuracy.json."""

from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.emulator.outputs import EmulatorStage
from dpuflow.workflow.board_stages import board_stage
from dpuflow.workflow.scripting import run
from dpuflow.workflow.stage_records import told, write_stage


def main(snakemake):
    dataset, xmodel = read_dataset(snakemake.input.dataset), snakemake.input.xmodel
    wanted, quantized = told(snakemake.params), snakemake.input.get("quantized")
    with EmulatorStage(xmodel, threads=snakemake.threads) as stage:
        record = board_stage(stage, dataset, wanted, quantized, xmodel, snakemake.output.predictions)
    record["runner"] = "emulator"
    record["origin"] = "emulated"
    record["how"] = "emulated: the xmodel file executed in exact integer arithmetic on this machine; no board"
    write_stage(snakemake.output.accuracy, record)


run(main, globals())
