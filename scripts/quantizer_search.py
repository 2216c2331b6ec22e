"""Compare settings of the reference quantizer on one network -> quantizer_search.csv, .html."""

from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.network.network_file import load_network
from dpuflow.quantizer_search.comparison import Comparison
from dpuflow.quantizer_search.grid import as_entry, varied
from dpuflow.report.quantizer_search import write_search
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    dataset, settings = read_dataset(snakemake.input.dataset), snakemake.params.settings
    comparison = Comparison(
        load_network(snakemake.input.network),
        dataset.images_in("calibration"),
        (dataset.images_in("validation"), dataset.labels_in("validation")),
        snakemake.params.input_scaling,
        threads=snakemake.threads,
    )
    rows = []
    for number, (setting, words) in enumerate(zip(settings, varied(settings), strict=True), 1):
        row = comparison.measure(setting)
        rows.append(row)
        log.info(
            "%d of %d: %s: %s",
            number,
            len(settings),
            ", ".join(f"{key} {value}" for key, value in words.items()) or "the only setting",
            row.get("error") or f"{row['correct']} of {len(comparison.labels)} validation images right",
        )
    ranked = comparison.ranked(rows)
    write_search(
        ranked,
        snakemake.output.table,
        snakemake.output.page,
        dataset=snakemake.params.dataset,
        model=snakemake.params.model,
        images=len(comparison.labels),
        float_correct=comparison.float_correct,
    )
    log.info(
        "best setting (validation images; the float network: %d right):\n%s",
        comparison.float_correct,
        as_entry(ranked[0]["setting"]),
    )


run(main, globals())
