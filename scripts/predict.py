"""A user's own pictures through the emulated board -> predictions.csv, predictions.html, skipped.json."""

from pathlib import Path

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.files import sha256, write_text
from dpuflow.base.numerics import images_at_a_time
from dpuflow.base.outputs import answer_of
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.datasets.find_pictures import find_pictures, short_names
from dpuflow.datasets.picture_files import read_pictures
from dpuflow.emulator.outputs import EmulatorStage, named_outputs
from dpuflow.predict.answers import answers_csv, answers_page, best_classes
from dpuflow.predict.found import FINDERS, found_page
from dpuflow.records import write_record
from dpuflow.workflow.scripting import SHOWN, log, run


def main(snakemake):
    given, params = snakemake.input.images, snakemake.params
    # alone, the script takes the config's form (a folder, a file); a rule hands over files
    paths = find_pictures([given] if isinstance(given, str) else list(given))
    dataset = read_dataset(snakemake.input.dataset)
    invert = params.get("invert", False)
    read, faults = read_pictures(paths, dataset.shape, invert, dataset.resize)
    if not read:
        raise UserError("; ".join(faults.values()))
    short = dict(zip(paths, short_names(paths), strict=True))
    skipped = [text.replace(path, short[path], 1) for path, text in faults.items()]
    names, pictures = [short[path] for path in read], list(read.values())
    facts = {
        **(params.get("run") or {}),
        "xmodel": Path(snakemake.input.xmodel).name,
        "xmodel_sha256": sha256(snakemake.input.xmodel),
    }
    step = images_at_a_time(dataset.shape)
    batches = (
        np.stack([picture.pixels for picture in pictures[i : i + step]])
        for i in range(0, len(pictures), step)
    )
    if dataset.task in FINDERS:
        found_in(snakemake, dataset, (names, pictures, batches), facts, skipped)
        return
    with EmulatorStage(snakemake.input.xmodel, threads=snakemake.threads) as stage:
        answer = answer_of(stage.shapes, params.get("answer"), snakemake.input.xmodel)
        if answer is None:
            raise UserError(
                f"{snakemake.input.xmodel}: no output of this network is the class of a picture "
                "(models.NAME.output: none), so there is nothing to name your pictures by; take the outputs "
                "with emulator.outputs.EmulatorStage (docs/emulator.md)"
            )
        scores = np.concatenate([stage(batch)[answer] for batch in batches])
        scores = scores.reshape(len(scores), -1)
        softmax = named_outputs(stage.emulator)[answer].type == "softmax"
    answers = best_classes(scores, dataset.class_names, params.get("top", 3))
    write_text(snakemake.output.predictions, answers_csv(names, answers))
    write_text(
        snakemake.output.page,
        answers_page(names, pictures, answers, facts, softmax, invert, skipped, dataset.resize),
    )
    write_record(snakemake.output.skipped, "skipped.schema.yaml", {"read": len(names), "skipped": skipped})
    for name, best in zip(names, answers, strict=True):
        log.log(SHOWN, "%s: %s", name, ", ".join(f"{a['name']} {a['score']:.3f}" for a in best))
    say(snakemake, names, skipped)


def found_in(snakemake, dataset, pictures_by_batch, facts, skipped):
    """The same for a data set with another task: boxes, or the classes of pixels."""
    (names, pictures, batches), xmodel = pictures_by_batch, snakemake.input.xmodel
    decode = snakemake.params.get("decode") or {}
    with EmulatorStage(xmodel, threads=snakemake.threads) as stage:
        finder = FINDERS[dataset.task](dataset, stage.shapes, decode, xmodel)
        for batch in batches:
            finder.add(stage(batch))
    write_text(snakemake.output.predictions, finder.csv(names, pictures))
    page = found_page(names, pictures, finder, dataset, facts, skipped, finder.threshold)
    write_text(snakemake.output.page, page)
    write_record(snakemake.output.skipped, "skipped.schema.yaml", {"read": len(names), "skipped": skipped})
    for index, (name, picture) in enumerate(zip(names, pictures, strict=True)):
        log.log(SHOWN, "%s: %s", name, ", ".join(finder.words(picture, index)))
    say(snakemake, names, skipped)


def say(snakemake, names, skipped):
    """What was left out, and where the page lies."""
    for fault in skipped:
        log.warning("skipped: %s", fault)
    log.info("emulated board, %d pictures: %s", len(names), snakemake.output.page)


run(main, globals())
