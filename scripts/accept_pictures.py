"""Fails, after all answers are written, if pictures had to be left out -> accepted.json."""

from dpuflow.base.errors import UserError
from dpuflow.records import read_record, write_record
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    paths = snakemake.input.skipped
    records = [
        read_record(path, "skipped.schema.yaml") for path in ([paths] if isinstance(paths, str) else paths)
    ]
    skipped = sorted({fault for record in records for fault in record["skipped"]})
    if skipped:
        raise UserError(
            f"{len(skipped)} of {len(skipped) + records[0]['read']} pictures were skipped; the answers for "
            "the others are in results/predict/:\n  " + "\n  ".join(skipped)
        )
    write_record(snakemake.output.accepted, "accepted.schema.yaml", {"pictures": records[0]["read"]})
    log.info("all pictures could be read")


run(main, globals())
