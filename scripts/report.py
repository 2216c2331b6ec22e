"""Accuracy of all runs, stage by stage -> accuracy.html, .md and .json; prints the stage table."""

from dpuflow.report.accuracy import write_report
from dpuflow.report.provenance import commit, provenance
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    about = provenance(
        snakemake.params.get("config"),
        snakemake.params.get("commands") or (),
        commit(snakemake.params.get("repository") or "."),
    )
    write_report(
        snakemake.params.runs, snakemake.output.html, snakemake.output.markdown, snakemake.output.data, about
    )
    log.info("report: %s", snakemake.output.html)


run(main, globals())
