"""arch.json of a target, for the vendor's compilers."""

from dpuflow.base.files import write_json
from dpuflow.device.targets import load_targets
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    name = snakemake.wildcards.target
    target = load_targets(extra={name: snakemake.params.hardware})[name]
    write_json(snakemake.output.arch, target.arch_json)
    log.info("%s, release %s: fingerprint %#x", target.dpu, target.release, target.fingerprint)


run(main, globals())
