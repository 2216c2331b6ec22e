"""Quantized model -> xmodel for a target (no instructions), its uncompiled form, compile.json."""

from dpuflow.base.errors import about
from dpuflow.device.targets import configured_target
from dpuflow.dpuczdx8g.compile_report import compile_reference
from dpuflow.network.quantized_file import read_quantized
from dpuflow.records import write_record
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    name, entry = snakemake.wildcards.target, snakemake.params.target
    target = configured_target(name, entry["hardware"])
    quantized = read_quantized(snakemake.input.model, floats=False)
    with about(snakemake.input.model):
        compiled = compile_reference(quantized, target, on_cpu=entry["on_cpu"])
        uncompiled = compiled.quantized_graph
    uncompiled.save(snakemake.output.quantized)
    compiled.graph.save(snakemake.output.xmodel)
    write_record(snakemake.output.report, "compile.schema.yaml", compiled.report)
    log.info(
        "%s for %s: %d layers on the DPU; estimated %.0f us per frame",
        quantized.network.name,
        target.name,
        len(compiled.report["estimate"]["layers"]),
        compiled.report["estimate"]["latency_us"],
    )


run(main, globals())
