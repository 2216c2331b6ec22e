"""Boxes from raw maps, against torchvision, onnxruntime and formulas written out one place at a time."""

import ast
import importlib
import math
from pathlib import Path

import numpy as np
import pytest

from dpuflow.decoding import decode as module
from dpuflow.decoding.decode import Decoder, check, decode, overlaps, suppressed, to_original

SIZE = (64, 96)
LOW = {"score_threshold": 0.3, "iou_threshold": 1.0, "max_boxes": 10000, "candidates": 10000}
"""Nothing is suppressed: what the formulas give is compared as it is."""


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def maps(shape, seed=0, spread=2.0):
    return np.random.default_rng(seed).normal(0, spread, shape).astype(np.float32)


def rows(found):
    """Boxes, scores and classes of a picture as one sorted array."""
    boxes, scores, classes = found
    table = np.column_stack([classes, scores, boxes])
    return table[np.lexsort(table.T[::-1])]


def same(found, expected):
    """Compared as sets: places differ where scores are equal but for their last bit."""
    expected = np.array(sorted(expected)).reshape(-1, 6)
    limits = [SIZE[1], SIZE[0]] * 2
    expected[:, 2:] = np.clip(expected[:, 2:], 0, limits)
    got = rows(found)
    assert len(got) == len(expected) > 5
    np.testing.assert_allclose(got, expected[np.lexsort(np.round(expected, 5).T[::-1])], rtol=1e-5, atol=1e-4)


# ---- the formulas, one place at a time


@pytest.mark.parametrize("kind", ["yolov3", "yolov5"])
@pytest.mark.parametrize("labels", ["best", "all"])
def test_anchored_heads(kind, labels):
    anchors = [[[10, 14], [23, 27]], [[37, 58], [81, 82]]]
    outputs = {"small": maps((2, 4, 6, 2 * 8), 1), "large": maps((2, 8, 12, 2 * 8), 2)}
    settings = {
        "kind": kind, "classes": 3, "anchors": anchors, "outputs": ["large", "small"], "strides": [8, 16],
        "labels": labels, **LOW,
    }  # fmt: skip
    found = decode(settings, outputs, SIZE)
    for picture in range(2):
        expected = []
        for name, stride, scale in (("large", 8, anchors[0]), ("small", 16, anchors[1])):
            m = outputs[name][picture].astype(float)
            for y in range(m.shape[0]):
                for x in range(m.shape[1]):
                    for a, (aw, ah) in enumerate(scale):
                        tx, ty, tw, th, obj, *cls = m[y, x, 8 * a : 8 * a + 8]
                        if kind == "yolov3":
                            cx, cy = (x + sigmoid(tx)) * stride, (y + sigmoid(ty)) * stride
                            w, h = aw * math.exp(tw), ah * math.exp(th)
                        else:
                            cx, cy = (
                                (x - 0.5 + 2 * sigmoid(tx)) * stride,
                                (y - 0.5 + 2 * sigmoid(ty)) * stride,
                            )
                            w, h = aw * (2 * sigmoid(tw)) ** 2, ah * (2 * sigmoid(th)) ** 2
                        scores = [sigmoid(obj) * sigmoid(c) for c in cls]
                        for k, score in enumerate(scores):
                            if score >= 0.3 and (labels == "all" or score == max(scores)):
                                expected.append((k, score, cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))
        same(found[picture], expected)


@pytest.mark.parametrize("together", [True, False])
def test_yolov8s_sides_are_means_of_distributions(together):
    bins, classes = 16, 3
    both = maps((1, 8, 12, 4 * bins + classes), 3, 3.0)
    outputs, names = {"head": both}, ["head"]
    if not together:
        outputs, names = {"a": both[..., 64:], "b": both[..., :64]}, [["b", "a"]]
    expected = []
    for y in range(8):
        for x in range(12):
            value = both[0, y, x].astype(float)
            sides = []
            for k in range(4):
                power = [math.exp(v) for v in value[16 * k : 16 * k + 16]]
                sides.append(8 * sum(i * p for i, p in enumerate(power)) / sum(power))
            score, k = max((sigmoid(v), -k) for k, v in enumerate(value[64:]))
            if score >= 0.3:
                cx, cy = 8 * (x + 0.5), 8 * (y + 0.5)
                expected.append((-k, score, cx - sides[0], cy - sides[1], cx + sides[2], cy + sides[3]))
    same(decode({"kind": "yolov8", "classes": classes, "outputs": names, **LOW}, outputs, SIZE)[0], expected)
    # which map is which follows from the channels where nothing tells it
    found = decode({"kind": "yolov8", "classes": classes, **LOW}, outputs, SIZE)[0]
    same(found, expected)


def test_ssd_as_torchvision_has_it(repo, monkeypatch):
    import torch

    monkeypatch.syspath_prepend(str(repo / "benchmarks"))
    importlib.import_module("torch_networks").torchvision()
    from torchvision.models.detection._utils import BoxCoder
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.image_list import ImageList

    square, classes, sizes = 96, 3, [0.2, 0.5, 0.9]
    generator = DefaultBoxGenerator([[2], [2, 3]], scales=sizes, clip=False)
    shapes = [(6, 6), (3, 3)]
    features = [torch.zeros(1, 8, *shape) for shape in shapes]
    priors = generator(ImageList(torch.zeros(1, 3, square, square), [(square, square)]), features)[0]
    outputs, offsets, scores = {}, [], []
    for index, (height, width) in enumerate(shapes):
        anchors = generator.num_anchors_per_location()[index]
        outputs[f"box{index}"] = maps((1, height, width, 4 * anchors), 10 + index, 0.7)
        outputs[f"score{index}"] = maps((1, height, width, (classes + 1) * anchors), 20 + index)
        offsets.append(outputs[f"box{index}"].reshape(-1, 4))
        scores.append(outputs[f"score{index}"].reshape(-1, classes + 1))
    boxes = BoxCoder((10.0, 10.0, 5.0, 5.0)).decode_single(torch.tensor(np.concatenate(offsets)), priors)
    boxes = boxes.clamp(0, square).numpy()
    shares = torch.softmax(torch.tensor(np.concatenate(scores)), -1).numpy()
    expected = [
        (k - 1, shares[row, k], *boxes[row])
        for row in range(len(boxes)) for k in range(1, classes + 1) if shares[row, k] >= 0.3
    ]  # fmt: skip
    settings = {
        "kind": "ssd", "classes": classes, "sizes": [s * square for s in sizes], "ratios": [[2], [2, 3]],
        "outputs": [["box0", "score0"], ["box1", "score1"]], **LOW,
    }  # fmt: skip
    found = decode(settings, outputs, (square, square))[0]
    got = rows(found)
    expected = np.array(sorted(expected))
    assert len(got) == len(expected) > 20
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("background", "at"), [("first", slice(1, 3)), ("last", slice(0, 2)), ("none", slice(0, 2))]
)
def test_ssds_background_and_sigmoid_scores(background, at):
    width = 2 + (background != "none")
    outputs = {"b": np.zeros((1, 1, 1, 4), np.float32), "s": maps((1, 1, 1, width), 5)}
    settings = {
        "kind": "ssd", "classes": 2, "anchors": [[[20, 10]]], "background": background, "scores": "sigmoid",
        "score_threshold": 0.0, "iou_threshold": 1.0,
    }  # fmt: skip
    boxes, scores, classes = decode(settings, outputs, (64, 96))[0]
    assert sorted(classes.tolist()) == [0, 1]
    wanted = [sigmoid(v) for v in outputs["s"][0, 0, 0, at].astype(float)]
    np.testing.assert_allclose(scores[np.argsort(classes)], wanted, rtol=1e-6)
    assert np.array_equal(boxes, [[38, 27, 58, 37]] * 2)  # the anchor in the middle of the picture


@pytest.mark.parametrize("turned", [False, True])
def test_a_network_that_ends_in_boxes(turned):
    values = np.array([[30, 20, 20, 10, 0.9, 0.1], [60, 40, 8, 8, 0.2, 0.7]], np.float32)
    outputs = {"output": (values.T if turned else values)[None]}
    settings = {"kind": "none", "classes": 2}
    boxes, scores, classes = decode(settings, outputs, SIZE)[0]
    assert np.array_equal(boxes, [[20, 15, 40, 25], [56, 36, 64, 44]]) and classes.tolist() == [0, 1]
    np.testing.assert_allclose(scores, [0.9, 0.7], rtol=1e-6)
    apart = {"scores": values[None, :, 4:], "boxes": np.array([[[0.25, 0.25, 0.5, 0.5]] * 2], np.float32)}
    settings |= {"form": "corners", "scale": "picture"}
    boxes, _, classes = decode(settings, apart, SIZE)[0]
    assert np.array_equal(boxes, [[24, 16, 48, 32]] * 2) and classes.tolist() == [0, 1]
    objects = np.array([[30, 20, 20, 10, 0.5, 0.9, 0.1]], np.float32)[None]  # YOLOv5's own tail
    _, scores, _ = decode({"kind": "none", "classes": 2, "objectness": True}, {"o": objects}, SIZE)[0]
    np.testing.assert_allclose(scores, [0.45], rtol=1e-6)


# ---- suppression


def random_boxes(seed, count, ties):
    random = np.random.default_rng(seed)
    first = random.integers(0, 40, (count, 2))
    boxes = np.concatenate([first, first + random.integers(1, 30, (count, 2))], axis=1).astype(np.float64)
    scores = random.integers(1, 20, count) / 20 if ties else random.permutation(count) / count
    return boxes, scores, random.integers(0, 3, count)


LIMITS = {"iou_threshold": 0.45, "max_boxes": 10000, "candidates": 10000}


@pytest.mark.parametrize("seed", range(4))
def test_suppression_as_onnxruntime_does_it(seed):
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    boxes, scores, classes = random_boxes(seed, 200, ties=False)
    by_class = np.where(np.arange(3)[:, None] == classes, scores, -1).astype(np.float32)
    inputs = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 200, 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3, 200]),
    ]
    initial = [
        helper.make_tensor("most", TensorProto.INT64, [1], [200]),
        helper.make_tensor("overlap", TensorProto.FLOAT, [1], [0.45]),
        helper.make_tensor("least", TensorProto.FLOAT, [1], [0.1]),
    ]
    node = helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "overlap", "least"], ["kept"])
    out = helper.make_tensor_value_info("kept", TensorProto.INT64, [None, 3])
    graph = helper.make_graph([node], "nms", inputs, [out], initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"boxes": boxes[None].astype(np.float32), "scores": by_class[None]})
    strong = np.flatnonzero(scores > 0.1)
    kept = strong[suppressed(boxes[strong], scores[strong], classes[strong], LIMITS)]
    assert sorted(kept.tolist()) == sorted(found[:, 2].tolist()) and len(kept) < len(strong)


@pytest.mark.parametrize("seed", range(20))
def test_what_suppression_holds_for_any_boxes(seed):
    boxes, scores, classes = random_boxes(seed, 60, ties=True)
    kept = suppressed(boxes, scores, classes, LIMITS)
    again = suppressed(boxes, scores, classes, LIMITS)
    assert np.array_equal(kept, again) and len(set(kept.tolist())) == len(kept)
    # the better first; of equal ones the earlier
    ranks = [(-scores[row], row) for row in kept]
    assert ranks == sorted(ranks)
    for row in range(60):
        rivals = [k for k in kept if classes[k] == classes[row] and (-scores[k], k) < (-scores[row], row)]
        covered = len(rivals) and (overlaps(boxes[row], boxes[rivals]) > 0.45).any()
        assert bool(covered) != (row in kept)
    few = suppressed(boxes, scores, classes, {**LIMITS, "max_boxes": 3})
    assert np.array_equal(few, kept[:3])
    # suppressing what is left changes nothing
    left = suppressed(boxes[kept], scores[kept], classes[kept], LIMITS)
    assert np.array_equal(left, np.arange(len(kept)))


def test_overlaps_of_empty_boxes_are_none():
    empty = np.array([5.0, 5, 5, 5])
    assert overlaps(empty, np.array([[5.0, 5, 5, 5], [0, 0, 10, 10]])).tolist() == [0, 0]


def test_nothing_found_is_an_empty_answer():
    outputs = {"o": np.full((2, 8, 12, 16), -9, np.float32)}
    settings = {"kind": "yolov3", "classes": 3, "anchors": [[[10, 10], [20, 20]]]}
    for boxes, scores, classes in decode(settings, outputs, SIZE):
        assert boxes.shape == (0, 4) and scores.shape == classes.shape == (0,)
        assert (boxes.dtype, scores.dtype, classes.dtype) == (np.float32, np.float32, np.int64)


def test_extreme_values_stay_within_the_picture():
    for value in (127.0, -128.0, 3e38, -3e38):
        for kind, channels in (("yolov3", 8), ("yolov5", 8), ("yolov8", 67)):
            outputs = {"o": np.full((1, 8, 12, channels), value, np.float32)}
            settings = {"kind": kind, "classes": 3, "anchors": [[[10, 10]]], "score_threshold": 0.0}
            with np.errstate(all="raise", under="ignore"):
                boxes, scores, _ = decode(settings, outputs, SIZE)[0]
            assert len(boxes) and np.isfinite(boxes).all() and (boxes >= 0).all()
            assert (boxes <= [96, 64, 96, 64]).all() and ((scores >= 0) & (scores <= 1)).all()


# ---- where boxes lie in the original


def test_boxes_go_back_to_the_original():
    geometry = [640, 480, 0, 0, 640, 480, 0, 12, 96, 84]  # 640 x 480 within bars of a square of 96
    boxes = np.array([[0, 12, 96, 84], [48, 48, 60, 60], [-5, 0, 300, 96]], np.float32)
    expected = [[0, 0, 640, 480], [320, 240, 400, 320], [0, 0, 640, 480]]
    np.testing.assert_allclose(to_original(boxes, np.array(geometry)), expected, rtol=1e-6)
    cropped = [640, 480, 80, 0, 560, 480, 0, 0, 96, 96]
    np.testing.assert_allclose(to_original(boxes[1:2], cropped), [[320, 240, 380, 300]], rtol=1e-6)
    assert to_original(np.zeros((0, 4), np.float32), geometry).shape == (0, 4)


# ---- what does not fit is said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "yolov9"}, "kind 'yolov9': expected yolov3, yolov5, yolov8, ssd, none"),
        ({"classes": 4}, "anchors: large has 16 channels; yolov5 with 4 classes (class_names of the "
                         "data set) has 2 anchors x 9 = 18; all heads: large 8x12x16, small 4x6x16"),
        ({"anchors": None}, "anchors: yolov5 needs them"),
        ({"anchors": [[[10, 14], [23, 27]]]}, "anchors: 1 entries for 2 scales (large, small)"),
        ({"anchors": [[[10, 0], [2, 2]], [[1, 1], [2, 2]]]}, "expected [[width, height], ...] in pixels"),
        ({"strides": [8, 32]}, "strides: 32 for small, whose map of 4 x 6 on a picture of 64 x 96 has"),
        ({"outputs": ["large", "tiny"]}, "outputs: the network has no tiny; it has large, small"),
        ({"labels": "some"}, "labels 'some': expected best, all"),
        ({"kind": "ssd"}, "say which of them are ssd's maps"),
        ({"kind": "yolov8"}, "kind: large has 16 channels; yolov8 with 3 classes"),
        ({"kind": "none"}, "say which of them are none's maps"),
    ],
)  # fmt: skip
def test_a_head_that_does_not_fit_is_named(change, said):
    settings = {"kind": "yolov5", "classes": 3, "anchors": [[[10, 14], [23, 27]], [[37, 58], [81, 82]]]}
    shapes = {"small": (4, 6, 16), "large": (8, 12, 16)}
    check(settings, shapes, SIZE)
    assert Decoder(settings, shapes, SIZE).names == [["large"], ["small"]]
    with pytest.raises(ValueError) as raised:
        check(settings | change, shapes, SIZE)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("shapes", "told", "said"),
    [
        ({"a": (8, 12, 64), "b": (8, 12, 80)}, {}, "a map of 4 x bins channels and one of 4, or both in one"),
        (
            {"a": (8, 12, 64), "b": (8, 12, 80)},
            {"outputs": [["a", "b"]]},
            "outputs: b has 80 channels; yolov8 with 4 classes (class_names of the data set) has one",
        ),
        # 16 bins and 80 classes would pass for 35 bins and 4 classes
        ({"a": (8, 12, 144)}, {}, "kind: a has 144 channels; yolov8 with 4 classes"),
    ],
)
def test_a_yolov8_of_other_classes_is_none_of_more_bins(shapes, told, said):
    with pytest.raises(ValueError) as raised:
        check({"kind": "yolov8", "classes": 4} | told, shapes, SIZE)
    assert said in str(raised.value)


def test_the_module_runs_on_old_python_with_numpy_alone():
    source = Path(module.__file__).read_text()
    tree = ast.parse(source, feature_version=(3, 6))
    imported = [n.names[0].name for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom))]
    assert imported == ["numpy"]
