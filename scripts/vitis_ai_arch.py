"""arch.json of a target, for the vendor's compilers."""

from dpuflow.files import write_json
from dpuflow.scripting import log, run
from dpuflow.targets import load_targets


def main(snakemake):
    name = snakemake.wildcards.target
    target = load_targets(extra={name: snakemake.params.hardware})[name]
    write_json(snakemake.output.arch, target.arch_json)
    log.info("%s, release %s: fingerprint %#x", target.dpu, target.release, target.fingerprint)


run(main, globals())
