"""Run the xmodel file on every test image in the emulator -> predictions.csv, board_accuracy.json."""

from dpuflow.accuracy.evaluation import accuracy_record, agreement, read_accuracy
from dpuflow.accuracy.predictions import predictions_csv
from dpuflow.base.files import write_text
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.emulator import Emulator
from dpuflow.records import write_record
from dpuflow.workflow.scripting import log_accuracy, run


def main(snakemake):
    dataset = read_dataset(snakemake.input.dataset)
    labels = dataset.labels_in("test")
    emulator = Emulator(snakemake.input.xmodel, threads=snakemake.threads)
    probabilities = dataset.through("test", lambda images: emulator.run(emulator.quantize_input(images)))
    probabilities = probabilities.reshape(len(probabilities), -1)
    predictions = probabilities.argmax(axis=1)
    record = accuracy_record("board", "test", labels, predictions, dataset.class_names)
    if snakemake.input.get("quantized"):
        record["agreement_with_quantized"] = agreement(
            predictions, read_accuracy(snakemake.input.quantized)["predictions"]
        )
    record["runner"] = "emulator"
    record["origin"] = "emulated"
    record["how"] = "emulated: the xmodel file executed in exact integer arithmetic on this machine; no board"
    write_text(
        snakemake.output.predictions,
        predictions_csv(labels, predictions, probabilities, dataset.class_names),
    )
    write_record(snakemake.output.accuracy, "accuracy.schema.yaml", record)
    log_accuracy(record)


run(main, globals())
