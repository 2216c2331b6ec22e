"""Run the xmodel's machine code on test images in the instruction simulator -> predictions, accuracy."""

from dpuflow.base.errors import UserError
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.dpuczdx8g.isa.outputs import IsaStage
from dpuflow.workflow.board_stages import board_stage
from dpuflow.workflow.scripting import log, run
from dpuflow.workflow.stage_records import told, write_stage


def main(snakemake):
    dataset, xmodel = read_dataset(snakemake.input.dataset), snakemake.input.xmodel
    wanted, quantized = told(snakemake.params), snakemake.input.get("quantized")
    stage = IsaStage(xmodel, threads=snakemake.threads)
    record = board_stage(stage, dataset, wanted, quantized, xmodel, snakemake.output.predictions)
    if stage.equal != stage.images:
        raise UserError(
            f"{xmodel}: machine code and emulator differ on {stage.images - stage.equal} of"
            f" {stage.images} images; do not deploy this file"
        )
    record["runner"] = "isa_simulator"
    record["origin"] = "simulated"
    record["how"] = "simulated: the file's machine code on an instruction-level simulator; no board"
    programs = stage.runner.summary()
    record["machine_code"] = {"images": stage.images, "equal_to_emulator": stage.equal, "programs": programs}
    log.info("machine code equal to the emulator on all %d images", stage.images)
    write_stage(snakemake.output.accuracy, record)


run(main, globals())
