"""arch.json of a target, for the vendor's compilers."""

from dpuflow.device.targets import configured_target
from dpuflow.records import write_record
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    name = snakemake.wildcards.target
    target = configured_target(name, snakemake.params.hardware)
    write_record(snakemake.output.arch, "arch.schema.yaml", target.arch_json)
    log.info("%s, release %s: fingerprint %#x", target.dpu, target.release, target.fingerprint)


run(main, globals())
