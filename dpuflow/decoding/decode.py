"""Boxes from a detector's raw maps: decoding, non-maximum suppression, and back to the picture as it was.

NumPy alone, nothing of dpuflow, and Python 3.6: dpuflow uses this file and a bundle ships it to boards, so
that equal maps give equal boxes wherever they come from. What a network's maps mean is told by a dict, the
key `decode` of a model; all but `kind` and `classes` may be left out:

kind : yolov3 | yolov5 | yolov8 | ssd | none (the network ends in boxes and scores).
classes : number of classes, the background not counted.
outputs : names of the maps, one entry for each scale; an entry is a name or a list of names whose channels
    stand one after the other (yolov8: [sides, classes]; ssd: [boxes, scores]). Default: all of them, the
    largest first, those of one size together.
anchors : yolov3, yolov5, ssd: for each scale [[width, height], ...] in pixels of the prepared picture.
strides : for each scale the pixels from one place to the next. Default: the picture's sides by the map's.
sizes, ratios : ssd, instead of anchors: a size in pixels for each scale and one more, and for each scale the
    ratios other than 1.
variances : ssd: of centre and size, default [0.1, 0.2].
background : ssd: first (default), last or none: which score is that of no object.
scores : ssd: softmax (default) or sigmoid; none: as_they_are (default) or sigmoid.
form : none: centre (centre x, centre y, width, height; default) or corners (x1, y1, x2, y2).
scale : none: pixels (default) or picture (coordinates from 0 to 1).
objectness : none: whether a score of any object stands before those of the classes.
labels : best (one class for each place) or all (each class above the threshold; default of ssd).
score_threshold : 0.01; weaker boxes are none.
iou_threshold : 0.45; of two boxes of a class with more than this of intersection by union the weaker goes.
max_boxes : 100, the most in a picture. candidates : 1000, the most that go into the suppression.
"""

import numpy as np

KINDS = ("yolov3", "yolov5", "yolov8", "ssd", "none")
DEFAULTS = {"score_threshold": 0.01, "iou_threshold": 0.45, "max_boxes": 100, "candidates": 1000}
MOST_BINS = 17
"""Of yolov8's distributions where one map holds sides and classes: more are a network of more classes."""
LARGEST_EXPONENT = 20.0
"""Sides of exp(20) times an anchor are beyond every picture; more would overflow."""


def decode(settings: dict, outputs: dict, size: tuple) -> list:
    """Boxes of each picture from {name: raw maps (N, ...), real numbers, channels last}.

    settings : see above; size : (height, width) of the prepared pictures.

    Returns a list of N tuples: boxes float32 (k, 4) as x1, y1, x2, y2 in pixels of the prepared picture and
    within it, scores float32 (k,), falling, and classes int64 (k,). ValueError as of `check`.
    """
    shapes = {name: maps.shape[1:] for name, maps in outputs.items()}
    return Decoder(settings, shapes, size)(outputs)


def check(settings: dict, shapes: dict, size: tuple) -> None:
    """ValueError with a sentence where {name: shape without the batch} does not fit what is told of it."""
    Decoder(settings, shapes, size)


class Decoder:
    """What makes boxes of maps; ValueError where the maps and what is told of them do not fit each other.

    told : see above. shapes : {name: shape without the batch} of the network's outputs, channels last.
    size : (height, width) of the prepared picture.
    """

    def __init__(self, told: dict, shapes: dict, size: tuple) -> None:
        self.told, self.size = told, (int(size[0]), int(size[1]))
        self.kind = self.choice("kind", KINDS)
        self.classes = int(told["classes"])
        self.limits = {key: told.get(key, default) for key, default in DEFAULTS.items()}
        self.all_labels = self.choice("labels", ("best", "all"), self.kind == "ssd") == "all"
        self.names = [[e] if isinstance(e, str) else list(e) for e in told.get("outputs") or []]
        if not self.names:
            self.names = self.scales_of(shapes)
        missing = [name for names in self.names for name in names if name not in shapes]
        if missing:
            raise ValueError(
                "outputs: the network has no {}; it has {}".format(missing[0], ", ".join(sorted(shapes)))
            )
        self.shapes = [[tuple(int(n) for n in shapes[name]) for name in names] for names in self.names]
        self.scales = [_SCALES[self.kind](self, index) for index in range(len(self.names))]

    def __call__(self, outputs: dict) -> list:
        """As of `decode`."""
        count = len(outputs[self.names[0][0]])
        return [self.of_one({name: maps[index] for name, maps in outputs.items()}) for index in range(count)]

    def of_one(self, outputs: dict) -> tuple:
        """(boxes, scores, classes) of one picture, from its maps without the batch."""
        found = []
        for names, scale in zip(self.names, self.scales):  # noqa: B905 (Python 3.6)
            found.append(scale([np.asarray(outputs[name]) for name in names]))
        boxes, scores, classes = (np.concatenate(part) for part in zip(*found))  # noqa: B905
        kept = suppressed(boxes, scores, classes, self.limits)
        sides = np.array([self.size[1], self.size[0]] * 2, np.float64)
        boxes = np.clip(boxes[kept], 0, sides).astype(np.float32)
        return boxes, scores[kept].astype(np.float32), classes[kept].astype(np.int64)

    def picked(self, scores: np.ndarray) -> tuple:
        """(rows, classes, scores) of what reaches the threshold, of scores (n, classes) in [0, 1]."""
        if self.all_labels:
            rows, classes = np.nonzero(scores >= self.limits["score_threshold"])
        else:
            classes = scores.argmax(axis=1)  # the first of equal ones
            rows = np.flatnonzero(scores[np.arange(len(scores)), classes] >= self.limits["score_threshold"])
            classes = classes[rows]
        return rows, classes, scores[rows, classes]

    def choice(self, key: str, known: tuple, default: int = 0) -> str:
        """What is told of a key with a few possible values; `default` is the place of the usual one."""
        value = self.told.get(key, known[default])
        if value not in known:
            raise ValueError("{} {!r}: expected {}".format(key, value, ", ".join(known)))
        return value

    def scales_of(self, shapes: dict) -> list:
        """Names of each scale's maps where nothing tells: the largest first, those of one size together."""
        whole = self.kind == "none"  # then all are one scale
        places_of = {name: () if whole else tuple(shapes[name][:-1]) for name in sorted(shapes)}
        groups = {places: [n for n in places_of if places_of[n] == places] for places in places_of.values()}
        found = []
        for places in sorted(groups, key=lambda places: -np.prod(places)):
            names = groups[places]
            fitting = [
                pair
                for pair in ([names, names[::-1]] if len(names) == 2 else [names])
                if self.fits_together([int(shapes[name][-1]) for name in pair])
            ]
            if len(fitting) != 1:
                raise ValueError(
                    "outputs: the network has {}; {} with {} classes (class_names of the data set) has {} "
                    "for each scale; say which of them are {}'s maps, and in which order".format(
                        ", ".join("{} {}".format(n, "x".join(map(str, shapes[n]))) for n in names),
                        *(self.kind, self.classes, self.of_one_scale(), self.kind),
                    )
                )
            found += fitting
        return found

    def fits_together(self, channels: list) -> bool:
        """Whether maps of one size with so many channels may be one scale, in this order."""
        if self.kind in ("yolov3", "yolov5") or len(channels) > 2:
            return len(channels) == 1
        if self.kind == "yolov8":
            return len(channels) == 1 or (channels[1] == self.classes and channels[0] % 4 == 0)
        if self.kind == "ssd":
            each = self.classes + (self.told.get("background") != "none")
            return len(channels) == 2 and channels[0] * each == channels[1] * 4
        return len(channels) == 1 or channels[0] == 4

    def of_one_scale(self) -> str:
        """The maps of one scale with their channels, for messages."""
        if self.kind in ("yolov3", "yolov5"):
            return f"one map of {5 + self.classes} channels for each anchor"
        if self.kind == "yolov8":
            return f"a map of 4 x bins channels and one of {self.classes}, or both in one"
        if self.kind == "ssd":
            each = self.classes + (self.told.get("background") != "none")
            return f"a map of 4 and one of {each} channels for each anchor"
        return "places of 4 values and places of the scores, or both in one"

    def of_scale(self, key: str, index: int) -> "list | float":
        """The entry of a list with one entry for each scale."""
        told = self.told[key]
        if len(told) != len(self.names):
            raise ValueError(
                "{}: {} entries for {} scales ({})".format(
                    key, len(told), len(self.names), ", ".join("+".join(names) for names in self.names)
                )
            )
        return told[index]

    def stride(self, index: int, height: int, width: int) -> tuple:
        """(x, y) pixels from one place of a map to the next; checked where the map must fill the picture."""
        whole = self.size[1] / width, self.size[0] / height
        if not self.told.get("strides"):
            return whole
        told = float(np.asarray(self.of_scale("strides", index)))
        if self.kind != "ssd" and (told, told) != whole:
            raise ValueError(
                "strides: {:g} for {}, whose map of {} x {} on a picture of {} x {} has {:g} and {:g}".format(
                    told, "+".join(self.names[index]), height, width, self.size[0], self.size[1], *whole
                )
            )
        return told, told

    def map(self, index: int) -> tuple:
        """(height, width, channels) of a scale's maps, its channels together."""
        shapes = self.shapes[index]
        if any(len(shape) != 3 for shape in shapes) or len({shape[:2] for shape in shapes}) != 1:
            raise ValueError(
                "outputs: {} of {}; expected maps (height, width, channels), of one size".format(
                    "+".join(self.names[index]), " and ".join(map(str, shapes))
                )
            )
        return shapes[0][0], shapes[0][1], sum(shape[2] for shape in shapes)

    def wrong_channels(self, key: str, names: list, channels: int, wanted: str) -> ValueError:
        """The error of maps whose channels are not what classes and anchors make. key : that says so."""
        return ValueError(
            "{}: {} has {} channels; {} with {} classes (class_names of the data set) has {}; all heads: "
            "{}".format(key, "+".join(names), channels, self.kind, self.classes, wanted, self.listed())
        )

    def listed(self) -> str:
        """The maps of all scales with their shapes, for messages."""
        scales = zip(self.names, self.shapes)  # noqa: B905 (Python 3.6)
        each = [pair for names, shapes in scales for pair in zip(names, shapes)]  # noqa: B905
        return ", ".join("{} {}".format(name, "x".join(map(str, shape))) for name, shape in each)


# ---- what a scale's maps mean


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) in float64."""
    return 1.0 / (1.0 + np.exp(-np.maximum(np.asarray(x, np.float64), -700.0)))


def softmax(x: np.ndarray) -> np.ndarray:
    """Along the last axis, in float64."""
    power = np.exp(np.asarray(x, np.float64) - np.max(x, axis=-1, keepdims=True))
    return power / power.sum(axis=-1, keepdims=True)


def corners(centres: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Centres (n, 2) and sides (n, 2) -> boxes (n, 4): x1, y1, x2, y2."""
    return np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)


def _exp(x):
    return np.exp(np.minimum(x, LARGEST_EXPONENT))


def _anchors(decoder, index):
    """(A, 2) float64."""
    if not decoder.told.get("anchors"):
        raise ValueError(f"anchors: {decoder.kind} needs them, [[width, height], ...] for each scale")
    found = np.asarray(decoder.of_scale("anchors", index), np.float64)
    if found.ndim != 2 or found.shape[1] != 2 or not len(found) or not (found > 0).all():
        raise ValueError(f"anchors: {found.tolist()}; expected [[width, height], ...] in pixels")
    return found


def _anchored(decoder, index):
    """yolov3, yolov5: for each anchor x, y, width, height, objectness, classes.

    yolov3: centre (place + sigmoid) * stride, sides anchor * exp. yolov5: centre (place - 0.5 + 2 sigmoid) *
        stride, sides anchor * (2 sigmoid)**2. The score is the objectness's sigmoid times the class's.
    """
    height, width, channels = decoder.map(index)
    anchors, stride = _anchors(decoder, index), np.array(decoder.stride(index, height, width))
    each = 5 + decoder.classes
    if channels != len(anchors) * each:
        wanted = f"{len(anchors)} anchors x {each} = {len(anchors) * each}"
        raise decoder.wrong_channels("anchors", decoder.names[index], channels, wanted)
    threshold = decoder.limits["score_threshold"]

    def boxes(maps: list) -> tuple:
        t = _joined(maps).reshape(height, width, len(anchors), each)
        y, x, a = np.nonzero(sigmoid(t[..., 4]) >= threshold)  # no class makes a score larger
        t = t[y, x, a].astype(np.float64)
        place = np.stack([x, y], axis=1)
        if decoder.kind == "yolov3":
            centres, sides = place + sigmoid(t[:, :2]), anchors[a] * _exp(t[:, 2:4])
        else:
            centres, sides = place - 0.5 + 2 * sigmoid(t[:, :2]), anchors[a] * (2 * sigmoid(t[:, 2:4])) ** 2
        rows, classes, scores = decoder.picked(sigmoid(t[:, 4:5]) * sigmoid(t[:, 5:]))
        return corners(centres * stride, sides)[rows], scores, classes

    return boxes


def _by_sides(decoder, index):
    """yolov8: the distances left, up, right, down from a place's middle as distributions, then the classes.

    A distance is the mean of a softmax over its bins 0, 1, 2, ... (distribution focal loss), times the
    stride; of a single bin it is the value itself. The score is the class's sigmoid.
    """
    height, width, channels = decoder.map(index)
    stride = np.array(decoder.stride(index, height, width))
    bins, rest = divmod(channels - decoder.classes, 4)
    names, shapes = decoder.names[index], decoder.shapes[index]
    if len(names) == 2 and shapes[1][2] != decoder.classes:
        raise decoder.wrong_channels("outputs", names[1:], shapes[1][2], "one for each class")
    if rest or bins < 1 or (len(names) == 1 and bins > MOST_BINS):
        wanted = f"4 x bins more than classes, bins from 1 to {MOST_BINS}"
        raise decoder.wrong_channels("kind", names, channels, wanted)
    threshold, steps = decoder.limits["score_threshold"], np.arange(bins, dtype=np.float64)

    def boxes(maps: list) -> tuple:
        t = _joined(maps)
        y, x = np.nonzero(sigmoid(t[..., 4 * bins :].max(axis=-1)) >= threshold)
        t = t[y, x].astype(np.float64)
        distances = t[:, : 4 * bins].reshape(-1, 4, bins)
        distances = (softmax(distances) * steps).sum(axis=-1) if bins > 1 else distances[..., 0]
        place = np.stack([x, y], axis=1) + 0.5
        found = np.concatenate([place - distances[:, :2], place + distances[:, 2:]], axis=1)
        rows, classes, scores = decoder.picked(sigmoid(t[:, 4 * bins :]))
        return (found * np.tile(stride, 2))[rows], scores, classes

    return boxes


def ssd_anchors(sizes: list, ratios: list) -> list:
    """Anchors of each scale, from sizes in pixels (one more than scales) and for each scale its ratios other
    than 1.

    Sides s, then the geometric mean of s and the next size, then s * sqrt(r) by s / sqrt(r) and turned for
    each r: the order of the paper's implementation and of torchvision.
    """
    if len(sizes) != len(ratios) + 1:
        raise ValueError(f"sizes: {len(sizes)} for {len(ratios)} scales; expected one more than scales")
    found = []
    for size, following, each in zip(sizes, sizes[1:], ratios):  # noqa: B905 (Python 3.6)
        mean = float(np.sqrt(float(size) * following))
        anchors = [[float(size), float(size)], [mean, mean]]
        for ratio in each:
            root = float(np.sqrt(ratio))
            anchors += [[size * root, size / root], [size / root, size * root]]
        found.append(anchors)
    return found


def _ssd(decoder, index):
    """ssd: for each anchor dx, dy, dw, dh against it, and a score for each class and the background.

    Centre anchor's + dx * variance * its side, side its * exp(dw * variance). Boxes are cut at the picture's
    edge before the suppression.
    """
    told = decoder.told
    if told.get("sizes") and not told.get("anchors"):
        decoder.of_scale("ratios", index)
        anchors = np.array(ssd_anchors(told["sizes"], told["ratios"])[index])
    else:
        anchors = _anchors(decoder, index)
    if len(decoder.names[index]) != 2:
        raise ValueError("outputs: ssd has two maps for each scale, [boxes, scores]")
    height, width, _ = decoder.map(index)
    background = decoder.choice("background", ("first", "last", "none"))
    width_of_scores = decoder.classes + (background != "none")
    key = "anchors" if told.get("anchors") else "ratios"
    for name, shape, each in zip(  # noqa: B905 (Python 3.6)
        decoder.names[index], decoder.shapes[index], (4, width_of_scores)
    ):
        if shape[2] != len(anchors) * each:
            wanted = f"{len(anchors)} anchors x {each} = {len(anchors) * each}"
            raise decoder.wrong_channels(key, [name], shape[2], wanted)
    stride_x, stride_y = decoder.stride(index, height, width)
    y, x, a = (part.ravel() for part in np.indices((height, width, len(anchors))))
    centres, sides = np.stack([(x + 0.5) * stride_x, (y + 0.5) * stride_y], axis=1), anchors[a]
    centre_variance, side_variance = told.get("variances") or (0.1, 0.2)
    squash = {"sigmoid": sigmoid, "softmax": softmax}[decoder.choice("scores", ("softmax", "sigmoid"))]
    classes_at = slice(background == "first", width_of_scores - (background == "last"))
    limits = np.array([decoder.size[1], decoder.size[0]] * 2, np.float64)

    def boxes(maps: list) -> tuple:
        t = maps[0].reshape(-1, 4).astype(np.float64)
        rows, classes, scores = decoder.picked(squash(maps[1].reshape(-1, width_of_scores))[:, classes_at])
        t, side = t[rows], sides[rows]
        found = corners(
            centres[rows] + t[:, :2] * centre_variance * side, side * _exp(t[:, 2:] * side_variance)
        )
        return np.clip(found, 0, limits), scores, classes

    return boxes


def _ready(decoder, index):
    """none: boxes and scores as the network gives them: [boxes, scores] or both in one, in any order."""
    told, shapes = decoder.told, decoder.shapes[index]
    lead = int(bool(told.get("objectness")))
    widths = (4, lead + decoder.classes) if len(shapes) == 2 else (4 + lead + decoder.classes,)
    turned = []
    for name, shape, wanted in zip(decoder.names[index], shapes, widths):  # noqa: B905 (Python 3.6)
        shape = tuple(n for n in shape if n != 1) or (1,)
        if wanted == 1:
            turned.append((-1, 1, False))
        elif len(shape) <= 2 and shape[-1] == wanted:
            turned.append((-1, wanted, False))
        elif len(shape) == 2 and shape[0] == wanted:
            turned.append((wanted, -1, True))
        else:
            raise ValueError(
                "outputs: {} is {}; expected places of {} values ({} classes)".format(
                    name, " x ".join(map(str, shape)), wanted, decoder.classes
                )
            )
    size = np.array([decoder.size[1], decoder.size[0]] * 2, np.float64)
    factor = size if decoder.choice("scale", ("pixels", "picture")) == "picture" else np.ones(4)
    centre = decoder.choice("form", ("centre", "corners")) == "centre"
    squash = {"sigmoid": sigmoid, "as_they_are": lambda x: x}[
        decoder.choice("scores", ("as_they_are", "sigmoid"))
    ]

    def boxes(maps: list) -> tuple:
        parts = [
            m.reshape(rows, columns).T if last else m.reshape(rows, columns)
            for m, (rows, columns, last) in zip(maps, turned)  # noqa: B905 (Python 3.6)
        ]
        t = np.concatenate(parts, axis=1).astype(np.float64)
        found, scores = t[:, :4] * factor, squash(t[:, 4 + lead :])
        if lead:
            scores = scores * squash(t[:, 4:5])
        if centre:
            found = corners(found[:, :2], found[:, 2:])
        rows, classes, scores = decoder.picked(scores)
        return found[rows], scores, classes

    return boxes


_SCALES = {"yolov3": _anchored, "yolov5": _anchored, "yolov8": _by_sides, "ssd": _ssd, "none": _ready}
"""Kind -> function(decoder, index of the scale) -> function(maps) -> (boxes (n, 4), scores (n,), classes)."""


def _joined(maps):
    return maps[0] if len(maps) == 1 else np.concatenate(maps, axis=-1)


# ---- suppression


def overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of a box (4,) and others (n, 4); 0 where both are empty."""
    return _overlaps(box, others.T, areas(others.T))


def areas(sides: np.ndarray) -> np.ndarray:
    """(n,) of boxes as columns (4, n); none of a box whose end lies before its beginning."""
    return np.maximum(sides[2] - sides[0], 0) * np.maximum(sides[3] - sides[1], 0)


def _overlaps(box, sides, sizes):
    """`overlaps` with boxes as columns (4, n), whose areas are known."""
    across = np.maximum(np.minimum(box[2], sides[2]) - np.maximum(box[0], sides[0]), 0)
    down = np.maximum(np.minimum(box[3], sides[3]) - np.maximum(box[1], sides[1]), 0)
    both = across * down
    union = areas(box) + sizes - both
    return both / np.where(union > 0, union, 1)


def suppressed(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, limits: dict) -> np.ndarray:
    """Rows of the boxes that stay, the best first: of each class none that shares too much with a better one.

    boxes (n, 4), scores and classes (n,); limits as DEFAULTS. Of equal scores the one that comes first is the
    better.
    """
    order = np.argsort(-scores, kind="mergesort")[: limits["candidates"]]  # stable
    sides, classes = np.ascontiguousarray(boxes[order].T), classes[order]
    sizes, alive, kept = areas(sides), np.ones(len(order), bool), []
    for index in range(len(order)):
        if not alive[index]:
            continue
        kept.append(index)
        if len(kept) == limits["max_boxes"]:
            break
        behind = slice(index + 1, None)
        close = _overlaps(sides[:, index], sides[:, behind], sizes[behind]) > limits["iou_threshold"]
        alive[behind] &= ~(close & (classes[behind] == classes[index]))
    return order[kept]


# ---- between a picture as it was and as it was prepared


def to_original(boxes: np.ndarray, geometry: np.ndarray) -> np.ndarray:
    """Boxes (n, 4) of a prepared picture in pixels of the original, float64, cut to what is used of it.

    geometry : width and height of the original; left, top, right, bottom of what is used of it; the same of
    where that lies in the prepared picture.
    """
    part, place = np.asarray(geometry, np.float64)[2:].reshape(2, 4)
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    moved = np.empty_like(boxes)
    for axis in (0, 1):
        scale = (part[axis + 2] - part[axis]) / (place[axis + 2] - place[axis])
        moved[:, axis::2] = (boxes[:, axis::2] - place[axis]) * scale + part[axis]
    return np.clip(moved, np.tile(part[:2], 2), np.tile(part[2:], 2))
