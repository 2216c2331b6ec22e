"""Run the xmodel's machine code on test images in the instruction simulator -> predictions, accuracy."""

import numpy as np

from dpuflow.accuracy.evaluation import accuracy_record, agreement, read_accuracy
from dpuflow.accuracy.predictions import predictions_csv
from dpuflow.base.errors import UserError
from dpuflow.base.files import write_text
from dpuflow.base.progress import counted
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.dpuczdx8g.isa.runner import IsaRunner
from dpuflow.emulator import Emulator
from dpuflow.records import write_record
from dpuflow.workflow.scripting import log, log_accuracy, run


def main(snakemake):
    dataset = read_dataset(snakemake.input.dataset)
    labels = dataset.labels_in("test")
    runner = IsaRunner(snakemake.input.xmodel, snakemake.input.xmodel)
    emulator = Emulator(snakemake.input.xmodel, threads=snakemake.threads)
    parts, equal = [], 0
    batches = counted(dataset.batches("test"), "images", len(labels), lambda batch: len(batch[0]))
    for images, _ in batches:
        batch = runner.quantize_input(images)
        parts.append(runner.run(batch))
        same = parts[-1] == emulator.run(batch)
        equal += int(same.reshape(len(batch), -1).all(axis=1).sum())
    probabilities = np.concatenate(parts)
    if equal != len(labels):
        raise UserError(
            f"{snakemake.input.xmodel}: machine code and emulator differ on {len(labels) - equal} of"
            f" {len(labels)} images; do not deploy this file"
        )
    probabilities = probabilities.reshape(len(batch), -1)
    predictions = np.argmax(probabilities, axis=1)
    record = accuracy_record("board", "test", labels, predictions, dataset.class_names)
    if snakemake.input.get("quantized"):
        record["agreement_with_quantized"] = agreement(
            predictions, read_accuracy(snakemake.input.quantized)["predictions"]
        )
    record["runner"] = "isa_simulator"
    record["origin"] = "simulated"
    record["how"] = "simulated: the file's machine code on an instruction-level simulator; no board"
    record["machine_code"] = {"images": len(labels), "equal_to_emulator": equal, "programs": runner.summary()}
    write_text(
        snakemake.output.predictions,
        predictions_csv(labels, predictions, probabilities, dataset.class_names),
    )
    write_record(snakemake.output.accuracy, "accuracy.schema.yaml", record)
    log.info("machine code equal to the emulator on all %d images", len(labels))
    log_accuracy(record)


run(main, globals())
