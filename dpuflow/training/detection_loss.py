"""What a detector is trained to: boxes, objectness and classes at the places and anchors that own an object.

An anchor owns a box when neither side differs by more than `RATIO` times. Its place is the one that the box's
middle is in; for yolov5, whose middles reach half a place further, the two nearest beside it, too. The
losses: 1 - complete IoU (arXiv 1911.08287) of the owned boxes; binary cross entropy of the objectness, whose
target is the overlap that the box has reached, everywhere; and of the classes, of the owned boxes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.tensorflow_env import tensorflow
from dpuflow.decoding import ANCHORED
from dpuflow.decoding.decode import Decoder

RATIO = 4.0
"""Greatest between a side of a box and of an anchor that owns it."""
BOX, OBJECT, CLASS = 2.0, 1.0, 0.5
"""Weights of the three losses: with them each has a like part in the gradient of a small network."""
FIELDS = 6
"""Of a target: x1, y1, x2, y2 in pixels, class, and 1 for an object, 0 for one to be left alone, -1 for
none."""
NEIGHBOURS = [[0, 0], [-1, 0], [0, -1], [1, 0], [0, 1]]
"""Places that may own a box: its own, left, above, right, below."""
LARGEST_EXPONENT = 4.0
"""exp(4) is beyond what an anchor owns; more would let one box end a training."""


class DetectionLoss:
    """The loss of one decode setting.

    settings : `decode` with classes and anchors (`decoding.anchors.settled`); kind yolov3 or yolov5.
    shapes : {output's name: (H, W, channels)} in the order of the model's outputs; size : (height, width).
    """

    def __init__(
        self, settings: Mapping[str, Any], shapes: Mapping[str, Sequence[int]], size: Sequence[int]
    ) -> None:
        if settings["kind"] not in ANCHORED:
            raise UserError(
                f"decode.kind {settings['kind']}: a network that is trained here has {' or '.join(ANCHORED)}"
            )
        self.kind, self.classes, self.size = settings["kind"], int(settings["classes"]), tuple(size)
        decoder = Decoder(dict(settings), dict(shapes), (size[0], size[1]))
        names = [entry[0] for entry in decoder.names]
        order = [names.index(name) for name in shapes]
        self.anchors = [np.asarray(settings["anchors"][k], np.float32) for k in order]
        self.maps = [tuple(int(n) for n in shape[:2]) for shape in shapes.values()]

    def __call__(self, outputs: Sequence[Any], targets: Any) -> dict[str, Any]:
        """{"box", "objectness", "class"} of a batch: scalars, to be added for the loss.

        outputs : maps (N, H, W, A * (5 + classes)) in the model's order. targets : (N, M, FIELDS) float32.
        """
        tf = tensorflow()
        parts = [
            self._of_map(tf, output, targets, *each)
            for output, *each in zip(outputs, self.anchors, self.maps, strict=True)
        ]
        owned = tf.maximum(tf.add_n([part["owned"] for part in parts]), 1.0)
        return {
            "box": BOX * tf.add_n([part["box"] for part in parts]) / owned,
            "objectness": OBJECT * tf.add_n([part["objectness"] for part in parts]) / owned,
            "class": CLASS * tf.add_n([part["class"] for part in parts]) / owned,
        }

    def _of_map(self, tf, output, targets, anchors, size):
        """Sums of the losses on one map, and how many places and anchors own a box."""
        (height, width), each = size, 5 + self.classes
        output = tf.reshape(output, (-1, height, width, len(anchors), each))
        step = tf.constant([self.size[1] / width, self.size[0] / height], tf.float32)
        where, boxes, classes = self._owners(tf, targets, anchors, step, size)
        t = tf.gather_nd(output, where)
        place = tf.cast(tf.stack([where[:, 2], where[:, 1]], 1), tf.float32)
        middle = tf.sigmoid(t[:, :2])
        own = tf.gather(tf.constant(anchors), where[:, 3])
        if self.kind == "yolov3":
            middle, sides = place + middle, own * tf.exp(tf.minimum(t[:, 2:4], LARGEST_EXPONENT))
        else:
            middle, sides = place - 0.5 + 2 * middle, own * (2 * tf.sigmoid(t[:, 2:4])) ** 2
        middle *= step
        overlap, complete = overlaps(tf, tf.concat([middle - sides / 2, middle + sides / 2], 1), boxes)
        reached = tf.tensor_scatter_nd_max(
            tf.zeros(tf.shape(output)[:4]), where, tf.maximum(tf.stop_gradient(overlap), 0.0)
        )
        doubt = tf.nn.sigmoid_cross_entropy_with_logits(reached, output[..., 4])
        kinds = tf.one_hot(classes, self.classes)
        wrong = tf.nn.sigmoid_cross_entropy_with_logits(kinds, t[:, 5:])
        return {
            "owned": tf.cast(tf.shape(where)[0], tf.float32),
            "box": tf.reduce_sum(1.0 - complete),
            "objectness": tf.reduce_sum(doubt * self._counted(tf, targets, step, size)),
            "class": tf.reduce_sum(wrong),
        }

    def _owners(self, tf, targets, anchors, step, size):
        """(places (n, 4: picture, y, x, anchor), boxes (n, 4), classes (n,)) of what owns a box."""
        corners = targets[..., :4]
        sides = corners[..., 2:] - corners[..., :2]
        middle = (corners[..., :2] + corners[..., 2:]) / 2 / step
        ratio = sides[:, :, None] / tf.constant(anchors)
        fits = tf.reduce_max(tf.maximum(ratio, 1 / tf.maximum(ratio, 1e-9)), -1) < RATIO  # (N, M, A)
        fits &= (targets[..., 5] == 1.0)[..., None]
        own = tf.floor(middle)
        within = middle - own
        if self.kind == "yolov3":
            near = tf.ones_like(within[..., :1], tf.bool)
        else:
            beside = tf.concat([within < 0.5, within > 0.5], -1)  # left, above, right, below
            near = tf.concat([tf.ones_like(beside[..., :1]), beside], -1)
        shifts = tf.constant(NEIGHBOURS[: near.shape[-1]], tf.float32)
        places = own[:, :, None] + shifts  # (N, M, P, 2) x, y
        last = tf.constant([size[1] - 1.0, size[0] - 1.0])
        near &= tf.reduce_all((places >= 0) & (places <= last), -1)
        which = tf.where(near[:, :, :, None] & fits[:, :, None, :])  # picture, box, neighbour, anchor
        found = tf.cast(tf.gather_nd(places, which[:, :3]), which.dtype)
        where = tf.stack([which[:, 0], found[:, 1], found[:, 0], which[:, 3]], 1)
        picked = tf.gather_nd(targets, which[:, :2])
        return where, picked[:, :4], tf.cast(picked[:, 4], tf.int32)

    def _counted(self, tf, targets, step, size):
        """1 where the objectness counts, 0 in boxes to be left alone: (N, H, W, 1)."""
        y, x = (tf.constant((np.arange(n) + 0.5).astype(np.float32)) for n in size)
        corners = targets[..., :4]
        x, y = (x * step[0])[None, None], (y * step[1])[None, None]
        across = (x > corners[..., 0, None]) & (x < corners[..., 2, None])  # (N, M, W)
        down = (y > corners[..., 1, None]) & (y < corners[..., 3, None])
        inside = down[..., :, None] & across[..., None, :] & (targets[..., 5] == 0.0)[..., None, None]
        return 1.0 - tf.cast(tf.reduce_any(inside, 1), tf.float32)[..., None]


def overlaps(tf: Any, boxes: Any, others: Any) -> tuple[Any, Any]:
    """(intersection over union, complete IoU) of boxes (n, 4) with others (n, 4), pair by pair.

    Complete: less the distance of the middles by the diagonal around both, and what the proportions differ.
    """
    left, right = tf.maximum(boxes[:, :2], others[:, :2]), tf.minimum(boxes[:, 2:], others[:, 2:])
    both = tf.reduce_prod(tf.maximum(right - left, 0.0), 1)
    sides, wanted = boxes[:, 2:] - boxes[:, :2], others[:, 2:] - others[:, :2]
    union = tf.reduce_prod(sides, 1) + tf.reduce_prod(wanted, 1) - both
    overlap = both / (union + 1e-7)
    around = tf.maximum(boxes[:, 2:], others[:, 2:]) - tf.minimum(boxes[:, :2], others[:, :2])
    apart = (boxes[:, :2] + boxes[:, 2:] - others[:, :2] - others[:, 2:]) / 2
    distance = tf.reduce_sum(apart**2, 1) / (tf.reduce_sum(around**2, 1) + 1e-7)
    angles = [tf.atan(s[:, 0] / (s[:, 1] + 1e-7)) for s in (sides, wanted)]
    shape = 4 / math.pi**2 * (angles[0] - angles[1]) ** 2
    share = tf.stop_gradient(shape / (1 - overlap + shape + 1e-7))
    return overlap, overlap - distance - share * shape
