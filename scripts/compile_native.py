"""Quantized model -> xmodel with machine code for a DPUCZDX8G, its uncompiled form, compile.json."""

from dpuflow.base.errors import about
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.device.targets import configured_target
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.network.quantized_file import read_quantized
from dpuflow.records import write_record
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    name, entry = snakemake.wildcards.target, snakemake.params.target
    target = configured_target(name, entry["hardware"])
    quantized = read_quantized(snakemake.input.model, floats=False)
    calibration, _ = read_dataset(snakemake.input.dataset).subset("calibration")
    with about(snakemake.input.model):
        compiled = compile_native(
            quantized,
            target,
            on_cpu=entry["on_cpu"],
            calibration=calibration,
            take_uncompiled=lambda graph: graph.save(snakemake.output.quantized),
        )
    compiled.graph.save(snakemake.output.xmodel)
    write_record(snakemake.output.report, "compile.schema.yaml", compiled.report)
    for program in compiled.report["programs"]:
        log.info(
            "%s for %s: %d instructions, %d bytes, estimated %d cycles",
            program["name"],
            program["machine"],
            sum(program["instructions"].values()),
            program["code_bytes"],
            program["estimate"]["cycles"],
        )
    log.info("verified: %s", compiled.report["verification"]["how"])
    log.info("%s", compiled.report["note"])


run(main, globals())
