"""`dpuflow compare`: two finished runs, picture by picture."""

import json

import numpy as np
import pytest
from PIL import Image

from dpuflow.accuracy.evaluation import accuracy_record
from dpuflow.command.compare import compared, words
from dpuflow.command.shell import main
from dpuflow.datasets.dataset_file import read_dataset
from dpuflow.datasets.picture_dataset import build_picture_dataset
from dpuflow.records import write_record

CLASSES = ["cat", "dog", "owl"]


def write(folder, labels, answers, stage="quantized", classes=CLASSES, **more):
    """The folder of a run with its record."""
    folder.mkdir(parents=True, exist_ok=True)
    record = accuracy_record(stage, "test", labels, answers, classes) | more
    write_record(folder / f"{stage}_accuracy.json", "accuracy.schema.yaml", record)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(dataset, labels, run A, run B): A is wrong on the last two of 12 pictures.

    B loses the second, gains the last and errs otherwise on the one before it.
    """
    root = tmp_path_factory.mktemp("results") / "animals"
    random = np.random.default_rng(0)
    for part, count in (("train", 4), ("test", 4)):
        for name in CLASSES:
            (root / "pictures" / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / "pictures" / part / name / f"{number}.png")
    source = {"kind": "pictures", "folder": str(root / "pictures")}
    build_picture_dataset(
        root / "dataset.h5", {"source": source, "image": {"height": 8, "width": 8, "channels": 3}}
    )
    data = read_dataset(root / "dataset.h5")
    labels = data.labels_in("test").astype(int)
    first, second = labels.copy(), labels.copy()
    first[-2:] = (labels[-2:] + 1) % 3
    second[1], second[-2] = (labels[1] + 1) % 3, (labels[-2] + 2) % 3
    return (
        data,
        labels,
        write(root / "small/reference", labels, first),
        write(root / "large/reference", labels, second),
    )


def test_what_two_runs_answer_otherwise(runs):
    data, labels, a, b = runs
    content = compared(a, b)
    assert content["dataset"] == str(data.path) and content["unit"] == "pictures"
    assert [record["figures"][0]["value"] for record in content["records"]] == [10 / 12, 10 / 12]
    assert (content["images"], content["equal"]) == (12, 9)
    assert (content["lost"], content["gained"], content["change"], content["p_value"]) == (1, 1, 0, 1)
    assert [row["image"] for row in content["changed"]] == [1, 10, 11]
    for row in content["changed"]:
        assert row["true"] == CLASSES[labels[row["image"]]]
        assert row["path"].startswith(f"test/{row['true']}/")
    lost, other, gained = content["changed"]
    assert lost["before"] == lost["true"] != lost["after"]
    assert gained["before"] != gained["true"] == gained["after"]
    assert len({other["before"], other["after"], other["true"]}) == 3


def test_in_words_and_for_programs(runs, capsys):
    _, _, a, b = runs
    assert main(["compare", str(a), str(b / "quantized_accuracy.json"), "--rows", "2"]) == 0
    text = capsys.readouterr().out
    assert "the same class: 9 of 12 of the test split (75.00%)" in text
    assert "change from A to B: +0.00 points" in text and "p = 1): pictures lost 1, gained 1" in text
    table = text.splitlines()[-4:]
    assert table[0].split() == ["image", "path", "true", "A", "B"] and table[1].startswith("1 ")
    assert table[3] == "... 1 more (--rows N, --json)"
    assert main(["compare", str(a), str(b), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["changed"]) == 3


def test_without_the_data_set_nobody_knows_which_is_right(runs, tmp_path):
    data, labels, _, b = runs
    alone = write(tmp_path / "a", labels, labels)
    content = compared(alone, b)
    assert content["dataset"] is None and "change" not in content and len(content["changed"]) == 2
    assert set(content["changed"][0]) == {"image", "before", "after"}
    assert "--dataset results/NAME/dataset.h5" in words(content)
    assert compared(alone, b, data.path)["lost"] == 2


def test_top_5_and_equal_answers(tmp_path):
    labels, classes = np.arange(30), [f"c{k}" for k in range(30)]
    paths = []
    for name, missed in (("a", [0, 1]), ("b", [1])):
        best = {"correct": 30 - len(missed), "accuracy": 1 - len(missed) / 30, "interval95": [0.5, 1.0]}
        more = {"top5": best | {"missed": missed}}
        paths.append(write(tmp_path / name, labels, labels, classes=classes, **more))
    text = words(compared(*paths))
    assert "the same class: 30 of 30" in text and "top-5: +3.33 points, 0 lost, 1 gained" in text
    assert "top-5 93.33%" in text and "image" not in text


def test_what_cannot_be_compared(runs, tmp_path, capsys):
    _, labels, a, b = runs

    def refused(*arguments):
        assert main(["compare", *map(str, arguments)]) == 1
        message = capsys.readouterr().err
        assert message.startswith("error: ") and message.count("\n") == 1
        return message

    assert "does not exist; expected a run's folder" in refused(a, tmp_path / "nothing")
    assert "in this folder; below it there are reference/quantized_acc" in refused(a.parent, b)
    write(tmp_path / "two", labels, labels)
    write(tmp_path / "two", labels, labels, stage="keras")
    assert "several stages (keras_accuracy.json, quantized_accuracy.json); name one" in refused(
        tmp_path / "two", b
    )
    fewer = write(tmp_path / "fewer", labels[:5], labels[:5])
    assert "not of the same pictures: images is 12 in the first, 5 in the second" in refused(a, fewer)
    others = write(tmp_path / "others", (labels + 1) % 3, labels)
    assert "not of the same pictures: labels_sha256 is" in refused(a, others)
