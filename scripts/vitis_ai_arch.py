"""arch.json of a target, for the vendor's compilers."""

from dpuflow.base.files import write_json
from dpuflow.device.targets import configured_target
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    name = snakemake.wildcards.target
    target = configured_target(name, snakemake.params.hardware)
    write_json(snakemake.output.arch, target.arch_json)
    log.info("%s, release %s: fingerprint %#x", target.dpu, target.release, target.fingerprint)


run(main, globals())
