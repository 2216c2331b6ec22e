"""Training for boxes and masks: losses against sums written out, targets that move, tiny networks."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from dpuflow.base.errors import UserError
from dpuflow.base.tensorflow_env import tensorflow
from dpuflow.decoding.anchors import settled
from dpuflow.decoding.decode import decode
from dpuflow.training.augmentation import augmenter_of_both, move_boxes, move_masks
from dpuflow.training.detection_loss import BOX, CLASS, OBJECT, DetectionLoss, overlaps
from dpuflow.training.image_source import ArrayImages
from dpuflow.training.model_builder import build_model
from dpuflow.training.objectives import Detection, Segmentation
from dpuflow.training.trainer import seed_everything, train

SCALING = {"subtract": 128, "divide": 128}
NO_TARGET = [0, 0, 0, 0, 0, -1]


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def entropy(target, logit):
    p = sigmoid(logit)
    return -target * math.log(p) - (1 - target) * math.log(1 - p)


# ---- the loss of a detector


def overlap_of(a, b):
    """(IoU, complete IoU) from the paper's formulas."""
    both = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    wa, ha, wb, hb = a[2] - a[0], a[3] - a[1], b[2] - b[0], b[3] - b[1]
    iou = both / (wa * ha + wb * hb - both)
    across, down = max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1])
    apart = ((a[0] + a[2] - b[0] - b[2]) / 2) ** 2 + ((a[1] + a[3] - b[1] - b[3]) / 2) ** 2
    v = 4 / math.pi**2 * (math.atan(wb / hb) - math.atan(wa / ha)) ** 2
    alpha = v / (1 - iou + v) if v else 0
    return iou, iou - apart / (across**2 + down**2) - alpha * v


def test_overlaps_follow_the_papers_formula():
    random = np.random.default_rng(0)
    first = random.uniform(0, 20, (40, 2, 2))
    boxes = np.concatenate([first, first + random.uniform(1, 20, (40, 2, 2))], axis=2).astype(np.float32)
    tf = tensorflow()
    plain, complete = overlaps(tf, tf.constant(boxes[:, 0]), tf.constant(boxes[:, 1]))
    expected = np.array([overlap_of(*pair) for pair in boxes.astype(float)])
    np.testing.assert_allclose(plain, expected[:, 0], atol=1e-5)
    np.testing.assert_allclose(complete, expected[:, 1], atol=1e-4)


def owners(kind, targets, anchors, step, height, width):
    """((picture, y, x, anchor), target) of all that own a box."""
    for picture, boxes in enumerate(targets):
        for box in boxes:
            x1, y1, x2, y2, _, weight = box
            cx, cy = (x1 + x2) / 2 / step, (y1 + y2) / 2 / step
            x, y = int(cx), int(cy)
            places = [(x, y)]
            if kind == "yolov5":
                places += [(x - 1, y)] * int(cx - x < 0.5) + [(x + 1, y)] * int(cx - x > 0.5)
                places += [(x, y - 1)] * int(cy - y < 0.5) + [(x, y + 1)] * int(cy - y > 0.5)
            for a, (aw, ah) in enumerate(anchors):
                ratios = (x2 - x1) / aw, (y2 - y1) / ah
                if weight == 1 and all(1 / 4 < r < 4 for r in ratios):
                    yield from (
                        ((picture, y, x, a), box) for x, y in places if 0 <= x < width and 0 <= y < height
                    )


def predicted(kind, values, place, anchors, step):
    """The box that a place tells of."""
    (tx, ty, tw, th), (_, y, x, a) = values[:4], place
    if kind == "yolov3":
        cx, cy = (x + sigmoid(tx)) * step, (y + sigmoid(ty)) * step
        w, h = anchors[a][0] * math.exp(tw), anchors[a][1] * math.exp(th)
    else:
        cx, cy = (x - 0.5 + 2 * sigmoid(tx)) * step, (y - 0.5 + 2 * sigmoid(ty)) * step
        w, h = anchors[a][0] * (2 * sigmoid(tw)) ** 2, anchors[a][1] * (2 * sigmoid(th)) ** 2
    return cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2


@pytest.mark.parametrize("kind", ["yolov3", "yolov5"])
def test_the_loss_is_the_sum_over_places_and_anchors(kind):
    """Two maps, two anchors each, two pictures; one box is to be left alone."""
    size, shapes, classes = (16, 24), {"a": (4, 6, 14), "b": (2, 3, 14)}, 2
    anchors = [[[4.0, 5.0], [9.0, 6.0]], [[10.0, 12.0], [20.0, 14.0]]]
    settings = settled({"kind": kind, "anchors": anchors}, classes, shapes, size, np.zeros((0, 4)))
    targets = np.array(
        [
            [[1, 2, 7, 8, 1, 1], [10, 3, 22, 15, 0, 1], [0, 0, 3.9, 3.9, 0, 0]],
            [[8.2, 8.2, 11.8, 13.8, 1, 1], NO_TARGET, NO_TARGET],
        ],
        np.float32,
    )
    random = np.random.default_rng(1)
    outputs = [random.normal(size=(2, *shape)).astype(np.float32) for shape in shapes.values()]
    expected, owned = {"box": 0.0, "objectness": 0.0, "class": 0.0}, 0
    for output, own, step in zip(outputs, anchors, (4, 8), strict=True):
        t = output.reshape(2, *output.shape[1:3], 2, 7).astype(float)
        reached = np.zeros(t.shape[:4])
        for place, wanted in owners(kind, targets.astype(float).tolist(), own, step, *output.shape[1:3]):
            plain, complete = overlap_of(predicted(kind, t[place], place, own, step), wanted[:4])
            owned += 1
            expected["box"] += 1 - complete
            expected["class"] += sum(entropy(float(n == wanted[4]), t[(*place, 5 + n)]) for n in range(2))
            reached[place] = max(reached[place], plain)
        for place in np.ndindex(*reached.shape):
            picture, y, x, _ = place
            if picture == 0 and (x + 0.5) * step < 3.9 and (y + 0.5) * step < 3.9:
                continue  # within the box to be left alone
            expected["objectness"] += entropy(reached[place], t[(*place, 4)])
    found = DetectionLoss(settings, shapes, size)(outputs, targets)
    weights = {"box": BOX, "objectness": OBJECT, "class": CLASS}
    assert owned > 8
    for name, value in found.items():
        assert float(value) == pytest.approx(weights[name] * expected[name] / owned, rel=1e-4), name


def test_pictures_without_boxes_have_a_loss_of_objectness_alone():
    shapes = {"a": (2, 3, 7)}
    settings = settled({"kind": "yolov5", "anchors": [[[8, 8]]]}, 2, shapes, (16, 24), np.zeros((0, 4)))
    found = DetectionLoss(settings, shapes, (16, 24))(
        [np.zeros((1, 2, 3, 7), np.float32)], np.array([[NO_TARGET]], np.float32)
    )
    assert [float(found[name]) for name in ("box", "class")] == [0, 0]
    assert float(found["objectness"]) == pytest.approx(OBJECT * 6 * math.log(2), rel=1e-5)


def test_a_kind_that_is_not_trained_here_is_refused():
    settings = settled({"kind": "yolov8"}, 2, {"a": (2, 3, 66)}, (16, 24), np.zeros((0, 4)))
    with pytest.raises(UserError, match="yolov8: a network that is trained here has yolov3 or yolov5"):
        DetectionLoss(settings, {"a": (2, 3, 66)}, (16, 24))


# ---- targets follow their pictures


EVERY_MOVE = {
    "rotation": 20,
    "zoom": 0.2,
    "shift": 0.15,
    "shear": 0.1,
    "flip": True,
    "flip_vertical": True,
    "crop": 0.3,
}


@pytest.mark.parametrize(
    "options", [{"flip": True}, {"flip_vertical": True}, {"crop": 0.4, "shift": 0.2}, EVERY_MOVE]
)
def test_boxes_and_masks_stay_on_what_they_mark(options):
    """A bright rectangle: after augmentation the moved box is around the pixels that are bright now."""
    tf, size, count = tensorflow(), 64, 12
    random = np.random.default_rng(0)
    first = random.integers(14, 26, (count, 2))
    boxes = np.concatenate([first, first + random.integers(12, 24, (count, 2))], axis=1)
    images, masks = np.zeros((count, size, size, 1), np.float32), np.zeros((count, size, size), np.uint8)
    for k, (x1, y1, x2, y2) in enumerate(boxes):
        images[k, y1:y2, x1:x2], masks[k, y1:y2, x1:x2] = 255, 1
    seen = {}

    def move(targets, transforms):
        seen["masks"] = move_masks(tf.constant(masks), transforms, 255).numpy()
        return move_boxes(targets, transforms)

    augment = augmenter_of_both(options, 3, (size, size, 1), move)
    changed, moved = augment(2, tf.constant(images), tf.constant(boxes[:, None].astype(np.float32)))
    changed, moved = changed.numpy()[..., 0], moved.numpy()[:, 0]
    assert np.abs(moved - boxes).max() > 4
    for image, mask, box in zip(changed, seen["masks"], moved, strict=True):
        y, x = np.nonzero(image > 127)
        found = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])
        # the edges are known to a pixel; at the picture's edge the box goes on outside of it
        # (corners of turned rectangles are thin)
        np.testing.assert_allclose(found, np.clip(box, 0, size), atol=4 if "rotation" in options else 1.01)
        there = mask != 255
        assert ((mask[there] == 1) == (image[there] > 127)).mean() > 0.96
    if "shift" in options:
        assert (seen["masks"] == 255).any()
    else:
        assert (seen["masks"] != 255).all()


def test_boxes_of_which_little_is_left_are_left_alone():
    shapes = {"a": (4, 4, 7)}
    settings = settled({"kind": "yolov5", "anchors": [[[8, 8]]]}, 2, shapes, (32, 32), np.zeros((0, 4)))
    objective = Detection(DetectionLoss(settings, shapes, (32, 32)))
    shift = [[1.0, 0, 20, 0, 1, 0, 0, 0]]  # everything 20 pixels to the left
    targets = [
        [[22, 4, 30, 12, 1, 1], [12, 4, 22, 12, 0, 1], [2, 2, 8, 8, 1, 1], [22, 2, 30, 8, 1, 0], NO_TARGET]
    ]
    moved = objective.move(np.array(targets, np.float32), np.array(shift, np.float32)).numpy()[0]
    assert moved[:, 5].tolist() == [1, 1, 0, 0, -1] or moved[:, 5].tolist() == [1, 0, 0, 0, -1]
    np.testing.assert_allclose(moved[0, :5], [2, 4, 10, 12, 1], atol=1e-4)
    np.testing.assert_allclose(moved[1, :4], [0, 4, 2, 12], atol=1e-4)


# ---- tiny networks learn


def dots(count, seed):
    """Pictures of 32 x 32 with one to three squares, dark (class 0) or bright (1); targets and masks."""
    random = np.random.default_rng(seed)
    images = random.integers(100, 140, (count, 32, 32, 1)).astype(np.uint8)
    targets, masks = (
        np.tile(np.array(NO_TARGET, np.float32), (count, 3, 1)),
        np.zeros((count, 32, 32), np.uint8),
    )
    for k in range(count):
        for n, cell in enumerate(random.permutation(4)[: random.integers(1, 4)]):
            side, kind = random.integers(6, 11), random.integers(2)
            x, y = 16 * (cell % 2) + random.integers(0, 6), 16 * (cell // 2) + random.integers(0, 6)
            images[k, y : y + side, x : x + side] = 230 if kind else 20
            masks[k, y : y + side, x : x + side] = 1 + kind
            targets[k, n] = [x, y, x + side, y + side, kind, 1]
    return images, targets, masks


def conv(filters, stride=1):
    return {"conv": {"filters": filters, "stride": stride, "activation": "relu"}}


SETTINGS = {
    "optimizer": "adam", "learning_rate": 0.01, "schedule": "cosine", "batch_size": 8, "epochs": 20,
    "augmentation": {"flip": True, "crop": 0.1, "brightness": 0.05},
}  # fmt: skip
HEADS = [
    conv(8, 2), conv(16, 2),
    {"concat": {"branches": [[], [conv(16, 2), {"head": {"anchors": 1}}, conv(8), {"upsample": 2}]]}},
    {"head": {"anchors": 2}},
]  # fmt: skip


def detector(layers=HEADS, epochs=SETTINGS["epochs"]):
    images, targets, _ = dots(160, 0)
    data = [ArrayImages(images[part], targets[part]) for part in (slice(0, 128), slice(128, 160))]
    seed_everything(1)
    model = build_model(layers, (32, 32, 1), 2, "tiny", "detection")
    shapes = {name: tuple(o.shape[1:]) for name, o in zip(model.output_names, model.outputs, strict=True)}
    known = targets[targets[..., 5] == 1][:, :4]
    told = settled({"kind": "yolov5", "anchors": "auto"}, 2, shapes, (32, 32), known)
    objective = Detection(DetectionLoss(told, shapes, (32, 32)))
    history = train(model, *data, SETTINGS | {"epochs": epochs}, SCALING, 1, objective)
    return model, told, history


@pytest.mark.slow
def test_a_tiny_detector_finds_what_it_was_shown():
    model, told, history = detector()
    assert model.output_names == ["head1", "head2"] and [len(a) for a in told["anchors"]] == [2, 1]
    columns = ["epoch", "learning_rate", "loss", "box", "objectness", "class", "validation_loss", "kept"]
    assert list(history[0]) == columns
    best = min(history, key=lambda row: row["validation_loss"])
    assert best["validation_loss"] < 0.6 * history[0]["validation_loss"] and best["kept"] == 1
    for row in history:
        assert row["loss"] == pytest.approx(row["box"] + row["objectness"] + row["class"], rel=1e-3)
    images, targets, _ = dots(24, 9)
    outputs = model((images.astype(np.float32) - 128) / 128, training=False)
    maps = {name: value.numpy() for name, value in zip(model.output_names, outputs, strict=True)}
    right = wrong = 0
    for (boxes, scores, kinds), wanted in zip(decode(told, maps, (32, 32)), targets, strict=True):
        left = [row for row in wanted if row[5] == 1]
        for box, _, kind in [each for each in zip(boxes, scores, kinds, strict=True) if each[1] > 0.3]:
            hit = [row for row in left if row[4] == kind and overlap_of(box, row[:4])[0] > 0.5]
            right, wrong = right + bool(hit), wrong + (not hit)
            left = [row for row in left if not any(row is other for other in hit)]
        wrong += len(left)
    assert right > 5 * wrong


def test_a_detectors_training_repeats_bit_by_bit():
    layers = [conv(8, 2), conv(8, 2), {"head": {"anchors": 2}}]
    first, second = (detector(layers, 1)[0].get_weights() for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_tiny_unet_finds_masks():
    images, _, masks = dots(160, 0)
    masks[:, :2] = 255  # no class there: counts for nothing
    layers = [conv(8), {"concat": {"branches": [[], [{"max_pool": 2}, conv(16), {"upsample": 2}]]}}, conv(8)]
    seed_everything(1)
    model = build_model(layers, (32, 32, 1), 3, "tiny", "segmentation")
    data = [ArrayImages(images[part], masks[part]) for part in (slice(0, 128), slice(128, 160))]
    history = train(model, *data, SETTINGS | {"batch_size": 16, "epochs": 6}, SCALING, 1, Segmentation(3))
    assert list(history[0]) == [
        "epoch",
        "learning_rate",
        "loss",
        "validation_loss",
        "validation_mean_iou",
        "kept",
    ]
    best = max(history, key=lambda row: (row["validation_mean_iou"], -row["validation_loss"]))
    assert best["kept"] == 1 and best["validation_mean_iou"] > 0.9
    x = (images[128:].astype(np.float32) - 128) / 128
    found, wanted = model(x, training=False).numpy().argmax(-1), masks[128:]
    shares = []
    for kind in range(3):
        a, b = (found == kind) & (wanted != 255), wanted == kind
        shares.append((a & b).sum() / (a | b).sum())
    assert np.mean(shares) == pytest.approx(best["validation_mean_iou"], abs=1e-6)


def test_the_loss_of_masks_is_the_mean_over_pixels_with_a_class():
    logits = np.random.default_rng(2).normal(size=(1, 2, 2, 3)).astype(np.float32)
    mask = np.array([[[0, 255], [2, 1]]], np.uint8)
    power = np.exp(logits.astype(float))
    shares = power / power.sum(-1, keepdims=True)
    expected = -np.mean([np.log(shares[0, 0, 0, 0]), np.log(shares[0, 1, 0, 2]), np.log(shares[0, 1, 1, 1])])
    found = Segmentation(3).losses([tensorflow().constant(logits)], tensorflow().constant(mask))
    assert float(found["loss"]) == pytest.approx(expected, rel=1e-5)
    given = [tensorflow().constant(shares.astype(np.float32))]  # of a model that ends in a softmax itself
    found = Segmentation(3, probabilities=True).losses(given, tensorflow().constant(mask))
    assert float(found["loss"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("layers", "task", "said"),
    [
        ([conv(4), "head", conv(4)], "detection", "the list of a detector ends with a head"),
        ([conv(4), "head"], "segmentation", r"layers\[1\]: a head is for data sets of the task detection"),
        ([conv(4), "head"], "classification", r"layers\[1\]: a head is for data sets of the task detection"),
        ([conv(4, 2)], "segmentation", "leaves 16 x 16 x 4, but the mask has a class for each of 32 x 32"),
    ],
)
def test_lists_that_do_not_fit_their_task_are_refused(layers, task, said):
    with pytest.raises(UserError, match=said):
        build_model(layers, (32, 32, 1), 2, "m", task)


def test_targets_of_several_pictures_are_one_array():
    from dpuflow.training.targets import BoxTargets

    rows = np.array([[1, 2, 3, 4], [5, 6, 7, 8], [0, 0, 9, 9]], np.float32)
    ignored, offsets = np.array([False, True, False]), np.array([0, 2, 2, 3])

    def of(places):
        starts, ends = offsets[:-1][places], offsets[1:][places]
        keep = np.concatenate([np.arange(a, b) for a, b in zip(starts, ends, strict=True)])
        counts = np.concatenate([[0], np.cumsum(ends - starts)])
        return SimpleNamespace(boxes=rows[keep], classes=keep, ignored=ignored[keep], offsets=counts)

    found = BoxTargets(SimpleNamespace(offsets=offsets, of=of))[np.array([2, 0])]
    assert found.shape == (2, 2, 6) and found.dtype == np.float32
    assert found.tolist() == [[[0, 0, 9, 9, 2, 1], NO_TARGET], [[1, 2, 3, 4, 0, 1], [5, 6, 7, 8, 1, 0]]]
