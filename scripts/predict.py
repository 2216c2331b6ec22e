"""A user's own PNG and JPG files through the emulated board -> predictions.csv, predictions.html."""

from pathlib import Path

import numpy as np

from dpuflow.base.files import sha256, write_text
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.emulator import Emulator
from dpuflow.predict.answers import answers_csv, answers_page, best_classes
from dpuflow.predict.find import find_pictures, short_names
from dpuflow.predict.picture_files import read_picture
from dpuflow.workflow.scripting import log, run


def main(snakemake):
    given, params = snakemake.input.images, snakemake.params
    # alone, the script takes the config's form (a folder, a file); a rule hands over files
    paths = find_pictures([given] if isinstance(given, str) else list(given))
    dataset = read_dataset(snakemake.input.dataset)
    invert = params.get("invert", False)
    pictures = [read_picture(path, dataset.shape, invert) for path in paths]
    with Emulator(snakemake.input.xmodel, threads=snakemake.threads) as emulator:
        scores = emulator.run(emulator.quantize_input(np.stack([picture.pixels for picture in pictures])))
        softmax = emulator.outputs[0].type == "softmax"
    answers = best_classes(scores, dataset.class_names, params.get("top", 3))
    names = short_names(paths)
    facts = {
        **(params.get("run") or {}),
        "xmodel": Path(snakemake.input.xmodel).name,
        "xmodel_sha256": sha256(snakemake.input.xmodel),
    }
    write_text(snakemake.output.predictions, answers_csv(names, answers))
    write_text(snakemake.output.page, answers_page(names, pictures, answers, facts, softmax, invert))
    for name, best in zip(names, answers, strict=True):
        log.info("%s: %s", name, ", ".join(f"{a['name']} {a['score']:.3f}" for a in best))
    log.info("emulated board, %d pictures: %s", len(names), snakemake.output.page)


run(main, globals())
