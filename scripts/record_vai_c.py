"""Log and xmodel of a vendor's compiler, checked against the target -> {model}.xmodel, compile.json."""

from dpuflow.base.files import write_bytes
from dpuflow.device.targets import configured_target
from dpuflow.records import write_record
from dpuflow.vitis_ai.records import compile_record, enforce_on_cpu, with_input_scaling
from dpuflow.workflow.scripting import log, run
from dpuflow.xir import Graph


def main(snakemake):
    name, entry = snakemake.wildcards.target, snakemake.params.target
    target = configured_target(name, entry["hardware"])
    record = compile_record(
        entry["compiler"],
        target.release,
        target,
        Graph.load(snakemake.input.xmodel),
        snakemake.input.xmodel,
        snakemake.input.log,
        snakemake.params.arch,
    )
    enforce_on_cpu(record, entry["on_cpu"])
    write_bytes(
        snakemake.output.xmodel, with_input_scaling(snakemake.input.xmodel, snakemake.params.input_scaling)
    )
    write_record(snakemake.output.report, "compile.schema.yaml", record)
    for finding in record["findings"]:
        log.info("%(layer)s (%(op)s): %(reason)s", finding)
    log.info("%s (%s): %d DPU subgraphs", target.dpu, record["fingerprint"], record["dpu_subgraphs"])


run(main, globals())
