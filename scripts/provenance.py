"""Checksums of all artifacts of the runs, versions, seeds, configuration, commit -> provenance.json.

No times and no absolute paths: equal artifacts from equal versions give equal bytes.
"""

from dpuflow.records import write_record
from dpuflow.report.provenance import checksums, commit, provenance
from dpuflow.workflow.scripting import log, run

FORMAT = 1


def main(snakemake):
    params = snakemake.params
    about = provenance(params.config, params.commands, commit(params.get("repository") or "."))
    artifacts = checksums(snakemake.input)
    write_record(
        snakemake.output.record,
        "provenance.schema.yaml",
        {"format": FORMAT, **about, "seeds": params.seeds, "artifacts": artifacts},
    )
    log.info("%d artifacts", len(artifacts))


run(main, globals())
