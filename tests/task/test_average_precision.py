"""Average precision: pycocotools' figure, found again by hand and by drawing; boxes and masks that change."""

import contextlib
import io
import sys

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dpuflow.accuracy.evaluation import wilson_interval
from dpuflow.base.errors import UserError
from dpuflow.task import average_precision, boxes, masks
from dpuflow.task.average_precision import Found, change_interval, precision, weighted_precision
from dpuflow.task.boxes import Answer


def random_boxes(generator, count):
    corners = generator.uniform(0, 100, (count, 2))
    return np.concatenate([corners, corners + generator.uniform(5, 40, (count, 2))], axis=1)


def random_case(seed, pictures=12, objects=60, others=80, classes=3):
    """(truth, answers): objects, some of them ignored, found about where they are, and boxes of nothing."""
    g = np.random.default_rng(seed)
    truth = Found(
        random_boxes(g, objects),
        g.integers(0, classes, objects),
        np.sort(g.integers(0, pictures, objects)),
        (g.random(objects) < 0.15).astype(float),
    )
    near = truth.boxes + g.normal(0, 3, (objects, 4))
    answers = Found(
        np.concatenate([near, random_boxes(g, others)]),
        np.concatenate([truth.classes, g.integers(0, classes, others)]),
        np.concatenate([truth.pictures, g.integers(0, pictures, others)]),
        np.round(g.random(objects + others), 2),  # many are equal
    )
    return truth, answers


def by_pycocotools(truth, answers, pictures, classes):
    """(mAP@0.5:0.95, mAP@0.5) as `COCOeval.summarize` says them, in its usual way with all sizes."""
    gt, dataset = COCO(), {"images": [{"id": i} for i in range(pictures)]}
    dataset["categories"] = [{"id": k, "name": str(k)} for k in range(classes)]
    rows = zip(truth.boxes, truth.classes, truth.pictures, truth.scores, strict=True)
    dataset["annotations"] = [
        {"id": i + 1, "image_id": int(p), "category_id": int(k), "iscrowd": int(ignored), "area": 2000.0,
         "bbox": [b[0], b[1], b[2] - b[0], b[3] - b[1]]}
        for i, (b, k, p, ignored) in enumerate(rows)
    ]  # fmt: skip
    gt.dataset = dataset
    columns = answers.boxes, answers.classes, answers.pictures, answers.scores
    with contextlib.redirect_stdout(io.StringIO()):
        gt.createIndex()
        dt = gt.loadRes([
            {"image_id": int(p), "category_id": int(k), "score": float(s),
             "bbox": [b[0], b[1], b[2] - b[0], b[3] - b[1]]}
            for b, k, p, s in zip(*columns, strict=True)
        ])  # fmt: skip
        evaluation = COCOeval(gt, dt, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[0], evaluation.stats[1]


@pytest.mark.parametrize("seed", range(3))
def test_the_figures_are_those_of_pycocotools(seed):
    truth, answers = random_case(seed)
    result = precision(truth, answers, 12, 3, draws=0)
    assert (result.whole, result.half) == pytest.approx(by_pycocotools(truth, answers, 12, 3), abs=1e-12)
    assert 0.05 < result.half < 0.95 and result.objects.sum() == int((truth.scores == 0).sum())


def test_a_case_by_hand():
    # two objects of a class: the better answer is right, the next is wrong, the last finds the other object
    truth = Found(
        np.array([[0, 0, 10, 10], [50, 50, 60, 60.0]]), np.zeros(2, int), np.array([0, 1]), np.zeros(2)
    )
    found = np.array([[0, 0, 10, 10], [80, 80, 90, 90], [50, 50, 60, 60.0]])
    answers = Found(found, np.zeros(3, int), np.array([0, 0, 1]), np.array([0.9, 0.8, 0.7]))
    result = precision(truth, answers, 2, 2, draws=0)
    # precision 1 up to recall 0.5 (51 of 101 values), 2/3 beyond
    assert result.half == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert np.isnan(result.average[:, 1]).all()  # no object of class 1: it does not count
    assert result.curves[:2, 0] == pytest.approx([1, 1]) and result.curves[100, 0] == pytest.approx(2 / 3)
    missed = Found(found[:0], np.zeros(0, int), np.zeros(0, int), np.zeros(0))
    assert precision(truth, missed, 2, 2).half == 0.0


def test_drawing_every_picture_once_is_pycocotools_own_figure():
    truth, answers = random_case(5)
    evaluation = average_precision._evaluated(truth, answers, 12, 3)
    for kind in range(3):
        parts = average_precision._of_class(evaluation, kind, 12)
        ours = weighted_precision(*parts, np.ones(12, int), evaluation.params.recThrs)
        np.testing.assert_allclose(ours, evaluation.eval["precision"][:, :, kind, 0, -1], atol=1e-12)


def test_drawing_a_picture_twice_is_having_it_twice():
    truth, answers = random_case(6)
    weights = np.array([2, 0, 1, 3] + [1] * 8)
    parts = average_precision._of_class(average_precision._evaluated(truth, answers, 12, 3), 0, 12)
    ours = weighted_precision(*parts, weights, np.linspace(0, 1, 101))
    copies = np.repeat(np.arange(12), weights)

    def repeated(found):
        rows = [np.flatnonzero(found.pictures == picture) for picture in copies]
        places = np.concatenate([np.full(len(r), i) for i, r in enumerate(rows)])
        every = np.concatenate(rows)
        return Found(found.boxes[every], found.classes[every], places, found.scores[every])

    result = precision(repeated(truth), repeated(answers), len(copies), 3, draws=0)
    assert ours.mean(axis=1) == pytest.approx(result.average[:, 0], abs=1e-12)


def test_intervals_are_wide_for_few_pictures_and_hold_the_figure():
    truth, answers = random_case(7, pictures=60, objects=300, others=200)
    result = precision(truth, answers, 60, 3)
    low, high = result.interval("half")
    assert low < result.half < high and 0.02 < high - low < 0.3
    assert result.interval("half") == precision(truth, answers, 60, 3).interval("half")
    assert change_interval(result, result) == [0.0, 0.0]
    half = np.arange(len(answers.scores)) % 2 == 0
    parts = answers.boxes, answers.classes, answers.pictures, answers.scores
    worse = Found(*(part[half] for part in parts))
    low, high = change_interval(result, precision(truth, worse, 60, 3))
    assert low < high < 0


def answer(*rows):
    """An Answer of (x1, y1, x2, y2, score, class)."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Answer(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


def test_boxes_lost_gained_and_kept():
    before = [answer((0, 0, 10, 10, 0.9, 0), (20, 20, 30, 30, 0.8, 1), (5, 5, 9, 9, 0.1, 0)), answer()]
    after = [answer((1, 0, 10, 10, 0.7, 0), (20, 20, 30, 30, 0.8, 0)), answer()]
    found = boxes.changes(before, after)
    assert found == {
        "images": 2,
        "identical": 1,
        "equal": 1,
        "interval95": list(wilson_interval(1, 2)),
        "boxes": 2,
        "kept": 1,
        "lost": 1,  # the same place, but another class
        "gained": 1,
        "agreement": 0.5,
        "first_difference": 0,
    }
    assert boxes.changes(before, before)["agreement"] == 1.0
    assert boxes.changes([answer()], [answer()]) | {"images": 1} == boxes.changes([answer()], [answer()])
    again = [boxes.from_json(boxes.to_json(one)) for one in before]
    assert all(a.same(b) for a, b in zip(before, again, strict=True))


def test_two_boxes_at_one_place_are_two():
    twice = [answer((0, 0, 10, 10, 0.9, 0), (0, 0, 10, 9, 0.8, 0))]
    once = [answer((0, 0, 10, 10, 0.9, 0))]
    assert boxes.changes(twice, once)["lost"] == 1 and boxes.changes(once, twice)["gained"] == 1


def test_masks_by_hand():
    truth = np.array([[0, 0, 1, 255], [1, 1, 2, 255]], np.uint8)
    found = np.array([[0, 1, 1, 0], [1, 0, 2, 2]], np.uint8)
    matrix = masks.confusion(truth, found, 4)
    assert matrix.tolist() == [[1, 1, 0, 0], [1, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    pixels = masks.pixels_of(matrix)
    np.testing.assert_allclose(masks.class_overlaps(pixels), [1 / 3, 2 / 4, 1, np.nan])
    assert masks.mean_overlap(pixels) == pytest.approx((1 / 3 + 1 / 2 + 1) / 3)
    assert masks.pixel_accuracy(pixels) == pytest.approx(4 / 6)
    drawn = masks.drawn_again(masks.pixels_of(np.stack([matrix] * 5)), draws=3)
    for part, one in zip(drawn, pixels, strict=True):
        assert part.tolist() == [(5 * one).tolist()] * 3

    assert masks.changes([truth, found], [truth, truth]) == {
        "images": 2,
        "equal": 1,
        "interval95": list(wilson_interval(1, 2)),
        "pixels": 16,
        "changed": 4,
        "agreement": 0.75,
        "first_difference": 1,
    }


def test_masks_are_packed_and_found_again():
    mask = np.random.default_rng(0).integers(0, 3, (20, 30), np.uint8)
    np.testing.assert_array_equal(masks.unpacked(masks.packed(mask), (20, 30)), mask)
    for text in (masks.packed(mask[:-1]), "AAAA", "ä", masks.packed(np.zeros((1000, 1000), np.uint8))):
        with pytest.raises(ValueError, match="mask"):
            masks.unpacked(text, (20, 30))
    kept = masks.PackedMasks((20, 30))
    kept.append(mask)
    kept.append(mask[::-1])
    assert len(kept) == 2 and masks.packed_texts(kept) == masks.packed_texts([mask, mask[::-1]])
    np.testing.assert_array_equal(list(kept), [mask, mask[::-1]])
    with pytest.raises(ValueError, match="mask"):
        masks.PackedMasks((20, 30), ["AAAA"])[0]


def test_maps_smaller_than_the_picture_count_for_squares_of_pixels():
    scores = np.zeros((1, 2, 2, 3), np.float32)
    scores[0, 0, 1, 2] = scores[0, 1, 0, 1] = 1
    found = masks.classes_of_pixels(scores, (4, 4), "x")
    assert found[0].tolist() == [[0, 0, 2, 2], [0, 0, 2, 2], [1, 1, 0, 0], [1, 1, 0, 0]]
    with pytest.raises(Exception, match="maps of 2 x 2 for pictures of 4 x 6"):
        masks.classes_of_pixels(scores, (4, 6), "x")


def test_one_channel_says_which_pixels_are_of_the_second_class():
    shares = np.array([0.5, 0.51, 0.0, 1.0], np.float32).reshape(1, 2, 2, 1)
    found = masks.classes_of_pixels(shares, (2, 2), "x", masks.SHARE)
    assert found.tolist() == [[[0, 1], [0, 1]]]  # as the first of equal ones: sigmoid(0) is class 0
    raw = np.log(np.clip(shares, 0.01, 0.99) / (1 - np.clip(shares, 0.01, 0.99)))
    np.testing.assert_array_equal(masks.classes_of_pixels(raw, (2, 2), "x", masks.RAW), found)
    with pytest.raises(UserError, match=r"x: an output of one channel .* say models\.NAME\.decode: \{kind"):
        masks.classes_of_pixels(raw, (2, 2), "x", masks.SHARE)
    with pytest.raises(UserError, match="from 0 to 1; found nan"):
        masks.classes_of_pixels(shares * np.nan, (2, 2), "x", masks.SHARE)


def test_without_pycocotools_the_error_says_how_to_install_it(monkeypatch):
    truth, answers = random_case(0)
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(
        UserError, match=r"pycocotools, which is not installed; pip install -r requirements\.txt"
    ):
        precision(truth, answers, 12, 3)


def test_intervals_of_masks_are_those_of_the_confusions_drawn_again():
    random = np.random.default_rng(5)
    every = random.integers(0, 50, (7, 4, 4))
    every[:, 2] = 0  # a class that no true pixel has
    generator = np.random.Generator(np.random.PCG64(0))
    weights = [np.bincount(generator.integers(7, size=7), minlength=7) for _ in range(9)]
    drawn = masks.pixels_of(np.stack([np.tensordot(w, every, 1) for w in weights]))
    found = masks.drawn_again(masks.pixels_of(every), draws=9)
    np.testing.assert_array_equal(masks.class_overlaps(found), masks.class_overlaps(drawn))
    assert masks.mean_overlap(found).tolist() == masks.mean_overlap(drawn).tolist()
    assert masks.pixel_accuracy(found).tolist() == masks.pixel_accuracy(drawn).tolist()
