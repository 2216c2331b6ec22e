"""All stages of a run, layer by layer -> deviation.json, deviation.html: where each first deviates."""

from pathlib import Path

from dpuflow.base.errors import UserError
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.deviation.diagnose import Sources, diagnose, verdict
from dpuflow.network.network_file import load_network
from dpuflow.network.quantized_file import read_quantized
from dpuflow.records import read_record, write_record
from dpuflow.report.deviation import write_deviation
from dpuflow.task.tasks import read_stage
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    given, params = snakemake.input, snakemake.params
    images = read_dataset(given.dataset).images_in("test")
    sources = Sources(given.xmodel)
    if given.get("quantized"):
        sources.quantized = read_quantized(given.quantized)
    if given.get("network"):
        sources.frozen, sources.scaling = load_network(given.network), params.input_scaling
    if given.get("board"):
        sources.board, folder = True, Path(given.board).parent / "dump"
        sources.dumped = read_record(given.board, "board.schema.yaml").get("dump")
        if sources.dumped is not None:
            sources.dumped = sources.dumped["image"]
            sources.dump = folder if folder.is_dir() else None
        sources.told = read_stage(given.board_accuracy).get("layers")
    numbers = sorted({*range(min(int(params.images), len(images))), *_dumped(sources, images)})
    if not numbers:
        raise UserError(f"{given.dataset}: no test images to compare the stages on")
    record = diagnose(sources, [(n, images[n : n + 1][0]) for n in numbers], float(params.sqnr_db))
    write_record(snakemake.output.record, "deviation.schema.yaml", record)
    write_deviation(record, snakemake.output.page, params.run)
    for stage in record["stages"][record["stages"][0]["against"] is None :]:
        log.info("%s: %s", stage["label"], "; ".join([stage["words"], *stage["notes"]]))
    log.info("%s; layer by layer: %s", verdict(record), snakemake.output.page)


def _dumped(sources, images):
    """Number of the image that a board dumped, if there is a dump."""
    if sources.dump is None:
        return []
    if sources.dumped >= len(images):
        raise UserError(f"{sources.dump}: is of image {sources.dumped}, the data set has {len(images)}")
    return [sources.dumped]


run(main, globals())
