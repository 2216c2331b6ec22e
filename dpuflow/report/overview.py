"""What stands above the details of the runs: stage table, costs, how numbers came about, data sets."""

from collections.abc import Mapping, Sequence
from typing import Any

from dpuflow.accuracy.evaluation import RECORD_KEYS
from dpuflow.datasets.dataset_file import Dataset
from dpuflow.report import answers, hardware, wording
from dpuflow.report.hardware import flatten
from dpuflow.report.inputs import RUNNERS, STAGES, LoadedRun

OPEN_RUNS = 2
"""Runs whose details are unfolded when the page opens."""

KINDS = {
    "measured": "Accuracy of Keras, frozen and quantized stages is measured: the artifact itself "
    "answered every image of the split in TensorFlow.",
    "emulated": "An emulated board executes the xmodel file in the DPU's integer arithmetic on this "
    "computer. Its answers are meant to be those of the device bit for bit; no device took part.",
    "simulated": "Machine code (simulated): the DPU's instructions were executed by a simulator of the "
    "instruction set, not by a device.",
    "estimate": "Latency, throughput and energy are computed, from the machine code where there is some and"
    " else from the layers, not measured.",
}


def page_values(runs: Sequence[LoadedRun], content: Mapping[str, Any]) -> dict[str, Any]:
    """What both templates need: the stage table and the words around it."""
    views = [
        run_view(run, result, index)
        for index, (run, result) in enumerate(zip(runs, content["runs"], strict=True), 1)
    ]
    for view, name in zip(views, short_names(content["runs"]), strict=True):
        view["short"] = name
    return {
        "title": page_title(content["runs"]),
        "columns": columns(runs),
        "changes": any(view["change"] for view in views),
        "distances": any(view["distances"] for view in views),
        "views": views,
        "scale": scale(content["runs"]),
        "kinds": kinds(runs),
        "provenance": content["provenance"],
        "checksums": checksums(runs),
        "warnings": warnings(runs),
        "datasets": datasets(runs),
        "answers": answers.comparable(runs, views),
        "answers_left_out": len(runs) > 1 and answers.too_many(runs),
        "costs": any(
            run.compile or view["costs"]["xmodel_bytes"] for run, view in zip(runs, views, strict=True)
        ),
    }


def short_names(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a run is called where there is little room: its model, and each id in which the runs differ."""
    keys = [
        key
        for key in ("dataset", "quantizer", "target", "runner")
        if len({str(result.get(key)) for result in results}) > 1
    ]
    return [
        " / ".join([str(result.get("model") or f"run {index}"), *(str(result.get(key)) for key in keys)])
        for index, result in enumerate(results, 1)
    ]


def page_title(results: Sequence[Mapping[str, Any]]) -> str:
    """Datasets, splits and image counts of the report in a line."""
    seen = dict.fromkeys((r.get("dataset"), r["split"], r["images"]) for r in results)
    parts = [
        f"{dataset or 'dataset'}, {images:,} images of the {split} split" for dataset, split, images in seen
    ]
    runs = f"{len(results)} run{'s' if len(results) > 1 else ''}"
    return f"{runs} on {'; '.join(parts)}"


def columns(runs: Sequence[LoadedRun]) -> list[dict[str, Any]]:
    """Columns (`stages`, `label`) of what any run has, with the heading all runs share, or the plain one.

    A run starts from a Keras or an ONNX network: where there are runs of both, these share a column.
    """
    found = []
    for stage, (_, plain) in STAGES.items():
        labels = {run.stage_label(stage) for run in runs if stage in run.records}
        if labels:
            found.append({"stages": [stage], "label": labels.pop() if len(labels) == 1 else f"{plain} stage"})
    start = ["keras", "onnx"]
    both = [name for column in found[:2] for name in column["stages"]] == start
    if both and not any(run.records.keys() >= set(start) for run in runs):
        found[:2] = [{"stages": start, "label": "Trained"}]
    return found


def scale(results: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Common axis (low, high) of the whiskers: all intervals, rounded outwards to half a per cent."""
    stages = [stage for result in results for stage in result["stages"]]
    bounds = [stage["interval95"] for stage in stages if "interval95" in stage]
    if not bounds:  # no network here says a class
        return 0.0, 1.0
    low = int(min(b[0] for b in bounds) * 200) / 200
    high = min(1.0, (int(max(b[1] for b in bounds) * 200) + 1) / 200)
    return (low, high) if high > low else (low - 0.005, high)


def run_view(run: LoadedRun, result: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Names, anchors and the stage cells of a run."""
    stages = {}
    previous = None
    for row in result["stages"]:
        labels = {"previous_label": previous, "first_label": result["stages"][0]["label"]}
        stages[row["stage"]] = {**row, **labels}
        previous = row["label"]
    change = result["comparisons"][-1] if result["comparisons"] else None
    ids = [str(run.ids[key]) for key in ("quantizer", "target", "runner") if run.ids.get(key) is not None]
    tail = " / ".join(ids)
    return {
        "id": f"run-{index}",
        "name": run.name,
        "tail": tail,
        "result": {"dataset": "", "model": "", **result},
        "stages": stages,
        "change": change,
        "stage_labels": [row["label"] for row in result["stages"]],
        "board_facts": board_facts(run.records.get("board", {})),
        "board_how": run.records.get("board", {}).get("how"),
        "costs": hardware.costs(run),
        "open": index <= OPEN_RUNS,
        "sentence": sentence(result, change),
        "distances": [
            {**labels_of(row), "name": name, **found}
            for row in result["comparisons"]
            for name, found in row.get("outputs", {}).items()
        ],
    }


def labels_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the stages of a comparison are called."""
    return {key: row[key] for key in ("before_label", "after_label")}


def board_facts(record: Mapping[str, Any]) -> dict[str, str | int | float]:
    """What a runner adds to the accuracy record (agreement with the emulator, unstable images, ...)."""
    if "task" in record:
        extra = {key: record[key] for key in ("agreement_with_quantized", "unstable_images") if key in record}
        outputs = record.get("outputs_with_quantized", {})
        for name, entry in outputs.items():
            words = f"{entry['equal']:,} of {entry['images']:,} images"
            if entry["max_difference"]:
                words += f", largest difference {wording.real(entry['max_difference'])}"
            extra[f"{name} equal to Quantized"] = words
        record = extra
    own = (*RECORD_KEYS, "top5", "outputs", "runner", "origin", "how", "agreement_with_quantized", "layers")
    extra = {key: value for key, value in record.items() if key not in own}
    if "unstable_images" in extra:
        extra["unstable_images"] = len(extra["unstable_images"])
    return {key: value for key, value in flatten(extra).items() if isinstance(value, (str, int, float))}


def sentence(result: Mapping[str, Any], change: Mapping[str, Any] | None) -> str:
    """The run in a line: first and last accuracy and the change between them."""
    first, last = result["stages"][0], result["stages"][-1]
    if "accuracy" not in first:
        outputs = ", ".join(f"{name} {shape}" for name, shape in first["outputs"].items())
        far = max((o["relative_error"] for o in (change or {}).get("outputs", {}).values()), default=None)
        apart = "" if far is None else f"; {last['label']} differs from {first['label']} by {far:.2g} at most"
        return f"outputs {outputs}, no class of the picture{apart}"
    measure = f"{first['measure']}: " if "measure" in first else ""
    text = f"{measure}{first['label']} {wording.percent(first['accuracy'])}"
    if last is not first:
        text += f" → {last['label']} {wording.percent(last['accuracy'])}"
    if change and "change" in change:
        low, high = (wording.points(bound) for bound in change["change_interval95"])
        text += f", {wording.points(change['change'])} (95 %: {low} to {high})"
    return text


def kinds(runs: Sequence[LoadedRun]) -> list[tuple[str, str]]:
    """(badge, explanation) for every way in which a number of this report came about."""
    found = {run.how(stage) for run in runs for stage in run.records}
    if any(run.compile and "estimate" in run.compile for run in runs):
        found.add("estimate")
    texts = dict(KINDS)
    if any(run.how("board") == "measured" for run in runs if "board" in run.records):
        texts["measured"] += f" Accuracy of the stage “{RUNNERS['ssh']}” is measured on the device."
    if any(run.stage_label("board") == "Virtual board" for run in runs if "board" in run.records):
        texts["emulated"] += " The virtual board also runs the board's own application, on a computer."
    without = [run.compile["target"] for run in runs if run.compile and not run.compile["machine_code"]]
    if without:
        every = len(without) == sum(1 for run in runs if run.compile)
        which = "" if every else f" of {', '.join(dict.fromkeys(without))}"
        texts["emulated"] += (
            f" The compiled xmodel{which} holds no DPU instructions, so a board cannot run it as it is."
        )
    return [(kind, text) for kind, text in texts.items() if kind in found]


def checksums(runs: Sequence[LoadedRun]) -> list[dict[str, str]]:
    """Every artifact's file and SHA-256 once, in the order of the chain."""
    seen: dict[str, dict[str, str]] = {}
    for run in runs:
        for artifact in run.files:
            for entry in artifact["sha256"]:
                seen.setdefault(entry["file"], entry)
    return list(seen.values())


def opened_datasets(runs: Sequence[LoadedRun]) -> dict[str, Dataset]:
    """{name: Dataset} of the runs that have theirs."""
    return {str(run.ids.get("dataset", "")): run.images.dataset for run in runs if run.images is not None}


def warnings(runs: Sequence[LoadedRun]) -> list[str]:
    """What makes the numbers of this report look better than they are, or worse than the network is."""
    found = []
    for name, data in opened_datasets(runs).items():
        leaked = data.attrs.get("train_images_in_test", 0)
        if leaked:
            found.append(
                f"{leaked:,} training images of {name} are also test images: its accuracy looks too good."
            )
    for run in runs:
        hints = (record["warning"] for record in run.records.values() if "warning" in record)
        hint = next((f"{run.ids.get('model')}: {text}" for text in hints), None)
        if hint and hint not in found:
            found.append(hint)
    return found


def datasets(runs: Sequence[LoadedRun]) -> list[dict[str, Any]]:
    """Facts of every data set: sizes, splits, repeated images, origins and checksums of its CSV files."""
    views = []
    for name, data in opened_datasets(runs).items():
        facts = {"image": " × ".join(str(n) for n in data.shape), "classes": len(data.present)}
        facts |= {f"{split} images": len(rows) for split, rows in data.splits.items()}
        facts |= {
            key: int(data.attrs[key])
            for key in ("train_duplicates", "test_duplicates", "train_images_in_test")
            if key in data.attrs
        }
        ends = ("_origin", "_sha256")
        origins = {key: str(value) for key, value in data.attrs.items() if key.endswith(ends)}
        views.append({"name": name, "facts": facts, "origins": origins})
    return views
