"""Anchors from training boxes: what they are, where they go, what is refused."""

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.decoding.anchors import cluster_sides, overlaps_of_sides, settled


def around(middles, each=50, seed=0):
    random = np.random.default_rng(seed)
    return np.concatenate([random.normal(middle, 0.05 * np.array(middle), (each, 2)) for middle in middles])


MIDDLES = [[10, 12], [30, 18], [20, 60], [90, 80]]


def as_boxes(sides, seed=1):
    corner = np.random.default_rng(seed).uniform(0, 20, (len(sides), 2))
    return np.concatenate([corner, corner + sides], axis=1)


def test_clusters_are_found_smallest_first():
    found = cluster_sides(around(MIDDLES), 4)
    np.testing.assert_allclose(found, MIDDLES, rtol=0.05)
    assert np.array_equal(found, cluster_sides(around(MIDDLES), 4))  # the same every time


def test_overlaps_count_a_corner_in_common():
    assert overlaps_of_sides(np.array([[2.0, 4]]), np.array([[4.0, 2], [2, 4]])).tolist() == [[4 / 12, 1]]


def test_more_anchors_than_kinds_of_boxes_are_no_trouble():
    assert cluster_sides(np.full((3, 2), 8.0), 6).tolist() == [[8, 8]] * 6
    assert len(cluster_sides(around(MIDDLES, 15000), 4)) == 4


def test_auto_gives_small_anchors_to_the_large_map():
    shapes, boxes = {"head1": (4, 6, 16), "head2": (8, 12, 16)}, as_boxes(around(MIDDLES))
    told = settled({"kind": "yolov5", "anchors": "auto"}, 3, shapes, (64, 96), boxes)
    assert told["classes"] == 3
    np.testing.assert_allclose(told["anchors"], [MIDDLES[:2], MIDDLES[2:]], rtol=0.05)
    named = {"kind": "yolov5", "anchors": "auto", "outputs": ["head1", "head2"]}
    found = settled(named, 3, shapes, (64, 96), boxes)["anchors"]
    assert found == told["anchors"][::-1]
    named["outputs"] = [["head1"], ["head2"]]  # each a list of one map
    assert settled(named, 3, shapes, (64, 96), boxes)["anchors"] == found


@pytest.mark.parametrize(
    ("settings", "boxes", "said"),
    [
        (
            {"kind": "yolov8", "anchors": "auto"},
            5,
            "m.anchors: auto is for yolov3 and yolov5, not for yolov8",
        ),
        ({"kind": "yolov5", "anchors": "auto", "outputs": ["x"]}, 5, "m.outputs: the network has no x"),
        ({"kind": "yolov5", "anchors": "auto"}, 0, "the training pictures have no boxes"),
        ({"kind": "yolov5", "anchors": [[[1, 1]]]}, 5, "m.anchors: head1 has 16 channels"),
    ],
)
def test_what_does_not_fit_is_said(settings, boxes, said):
    with pytest.raises(UserError) as raised:
        settled(settings, 3, {"head1": (4, 6, 16)}, (64, 96), as_boxes(around([[9, 9]], boxes)), "m")
    assert said in str(raised.value)
