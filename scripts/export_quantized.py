"""Quantized model -> the quantized, uncompiled xmodel that vai_c_xir takes."""

from dpuflow.compiler.quantized_graph import quantized_graph
from dpuflow.compiler.target_check import check, enforce
from dpuflow.device.targets import configured_target
from dpuflow.network.quantized_file import read_quantized
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    name, entry = snakemake.wildcards.target, snakemake.params.target
    target = configured_target(name, entry["hardware"])
    quantized = read_quantized(snakemake.input.model, floats=False)
    enforce(check(quantized, target), entry["on_cpu"], target)
    quantized_graph(quantized).save(snakemake.output.quantized)
    log.info("%s: %d layers", quantized.network.name, len(quantized.network.layers))


run(main, globals())
