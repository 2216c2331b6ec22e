"""The five best answers: ranks, ties, records, changes."""

import numpy as np
import pytest

from dpuflow.accuracy.evaluation import accuracy_record, wilson_interval
from dpuflow.accuracy.stages import stage_record
from dpuflow.accuracy.top import MANY_CLASSES, among_best, top_change, top_record
from dpuflow.base.errors import UserError
from dpuflow.records import mistakes


def test_the_right_class_is_looked_for_among_the_five_best():
    random = np.random.default_rng(0)
    scores = random.normal(size=(300, 40))
    labels = random.integers(0, 40, 300)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    assert among_best(scores, labels).tolist() == [
        label in best for label, best in zip(labels, order, strict=True)
    ]
    assert among_best(scores, scores.argmax(axis=1), 1).all()


def test_of_equal_scores_the_lower_class_comes_first():
    scores = np.zeros((3, 30), np.int8)
    scores[:, 7] = 1
    assert among_best(scores, np.array([7, 3, 4])).tolist() == [True, True, False]
    assert among_best(scores, np.array([7, 0, 29]), 1).tolist() == [True, False, False]


class Set:
    """A data set of two batches."""

    def __init__(self, classes):
        self.class_names = [f"c{i}" for i in range(classes)]
        self.labels = np.arange(12) % classes

    def labels_in(self, _):
        return self.labels

    def batches(self, _):
        for part in (slice(0, 7), slice(7, 12)):
            yield self.labels[part], self.labels[part]


class Answers:
    """A stage that gives the right class the rank 3, and image 9 the last one."""

    def __init__(self, classes):
        self.classes = classes
        self.shapes = {"output": (classes,)}

    def __call__(self, labels):
        scores = np.zeros((len(labels), self.classes), np.float32)
        for row, label in zip(scores, labels, strict=True):
            others = [i for i in range(self.classes) if i != label]
            row[others[:3]] = 3, 2.5, 2
            row[label] = -1 if label == 9 else 1
        return {"output": scores}


def test_a_stage_of_many_classes_has_them_in_its_record():
    record = stage_record("frozen", Answers(30), Set(30))
    assert record["correct"] == 0
    assert record["top5"] == {
        "correct": 11,
        "accuracy": 11 / 12,
        "interval95": list(wilson_interval(11, 12)),
        "missed": [9],
    }
    assert mistakes(record, "accuracy.schema.yaml") == []
    assert "top5" not in stage_record("frozen", Answers(MANY_CLASSES), Set(MANY_CLASSES))


def test_changes_between_two_stages():
    def record(missed, images=10):
        names = [f"c{i}" for i in range(30)]
        found = np.ones(images, bool)
        found[missed] = False
        zeros = np.zeros(images, int)
        return accuracy_record("frozen", "test", zeros, zeros, names) | {"top5": top_record(found)}

    assert top_change(record([1, 2]), record([2, 3, 4])) == {
        "change": pytest.approx(-0.1), "lost": 2, "gained": 1,
    }  # fmt: skip
    # a board that saw the first five only
    assert top_change(record([1, 8]), record([], 5)) == {"change": 0.2, "lost": 0, "gained": 1}
    assert top_change(record([]), {"images": 3}) is None


@pytest.mark.parametrize("classes", [3, 40])
def test_an_output_that_is_not_finite_is_refused(classes):
    """NaN is never smaller than another score: it would count among the five best."""

    def broken(labels):
        scores = np.zeros((len(labels), classes), np.float32)
        scores[labels == 8 % classes, 1] = np.nan
        return {"output": scores}

    broken.shapes = {"output": (classes,)}
    first = {3: 2, 40: 8}[classes]
    with pytest.raises(UserError, match=rf"output 'output' of picture {first} is not finite"):
        stage_record("frozen", broken, Set(classes))
