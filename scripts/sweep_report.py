"""All runs ranked, with trade-offs and means over seeds -> sweep.html, sweep.json."""

from dpuflow.report.sweep import write_sweep
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    content = write_sweep(snakemake.params.runs, snakemake.output.html, snakemake.output.data)
    for part in content["datasets"]:
        best = part["runs"][0]
        log.info(
            "%s: best of %d runs is %s / %s / %s (%d of %d images right)",
            part["dataset"],
            len(part["runs"]),
            best["model"],
            best["quantizer"],
            best["target"],
            best["correct"],
            best["images"],
        )
    log.info("sweep: %s", snakemake.output.html)


run(main, globals())
