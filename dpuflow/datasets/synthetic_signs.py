"""`synthetic_signs`: drawn hands in the form of Sign Language MNIST, for use offline.

The 24 static letters (labels 0..24 without 9), 28x28 grey. Every image has its own
random stream, seeded by (seed, part, index): image i is the same however many are
drawn and in whatever blocks, and the training and test parts share no stream. These
are drawings: accuracy on them says nothing about photographs.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from types import SimpleNamespace

import numpy as np

from dpuflow.datasets import hand_renderer
from dpuflow.datasets.hand_poses import POSES
from dpuflow.datasets.image_csv import Block
from dpuflow.datasets.labels import sign_mnist_labels

SIDE = 28
SUPERSAMPLING = 2
PARTS = {"train": 0, "test": 1}
DEFAULT_COUNTS = {"train": 12000, "test": 2400}
BLOCK = 480
"""Images drawn at a time; a multiple of the 24 letters."""
TOGETHER = 40
"""Images drawn in one go: enough to keep NumPy busy, few enough for the processor's cache."""
LEAST_CONTRAST = 55
"""Grey levels between the mean background and the mean hand."""

_LABELS = sign_mnist_labels()


def labels_of_rows(start: int, stop: int, part: str, seed: int) -> np.ndarray:
    """Labels uint8 of images start..stop-1: each 24 in a row hold every letter once, shuffled."""
    present = np.array(_LABELS.present, np.uint8)
    first, last = start // len(present), -(-stop // len(present))
    deals = [_generator(seed, part, deal, 1).permutation(present) for deal in range(first, last)]
    offset = first * len(present)
    return np.concatenate([*deals, present[:0]])[start - offset : stop - offset]


def draw(start: int, stop: int, part: str, seed: int) -> Block:
    """Draw images start..stop-1: images uint8 (n, 28, 28, 1), labels uint8 (n,).

    part : "train" or "test". seed : int >= 0.
    """
    labels = labels_of_rows(start, stop, part, seed)
    images = np.empty((len(labels), SIDE, SIDE, 1), np.uint8)
    # images of one letter lie side by side: their bones cover similar windows
    order = np.argsort(labels, kind="stable")
    for first in range(0, len(order), TOGETHER):
        rows = order[first : first + TOGETHER]
        letters = [_LABELS.name(label) for label in labels[rows]]
        generators = [_generator(seed, part, start + int(row), 0) for row in rows]
        images[rows, :, :, 0] = draw_letters(letters, generators)
    return images, labels


def drawn_blocks(count: int, part: str, seed: int, processes: int | None = None) -> Iterator[Block]:
    """Yield (images, labels) blocks of `count` images, drawn in parallel, in order."""
    starts = list(range(0, count, BLOCK))
    jobs = [(start, min(start + BLOCK, count), part, seed) for start in starts]
    processes = min(processes or _usable_processors(), len(jobs))
    if processes <= 1:
        yield from (draw(*job) for job in jobs)
        return
    # not fork: the caller may hold threads (TensorFlow)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(draw, *zip(*jobs, strict=True))


def _usable_processors():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _generator(seed, part, index, purpose):
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, PARTS[part], index, purpose))))


class _Draws:
    """What chance decides of one image, in the order in which it is drawn."""

    def __init__(self, random):
        self.fingers = random.normal(0, 1, (4, 4)) * (3, 3, 3, 1.2)
        self.thumb = random.normal(0, 2.5, (3, 2))
        self.thickness = random.uniform(0.95, 1.2)
        self.attitude = random.normal(0, 6), random.normal(0, 5), random.normal(0, 6)
        self.forearm = random.normal(0, 0.25, 2)  # it bends at the wrist
        self.scale = random.uniform(0.8, 1.0)
        self.shift = random.uniform(-1, 1, 2)
        self.light = random.uniform(0, 2 * np.pi), random.uniform(0.45, 0.95)
        self.ambient = random.uniform(0.25, 0.5)
        self.skin = random.uniform(120, 235)
        self.slope = random.normal(0, 18, 2)
        self.level = random.uniform(30, 225)
        waves = [(*random.normal(0, 4, 2), random.uniform(0, 2 * np.pi), random.uniform(0, 10)) for _ in "12"]
        self.waves = np.array(waves)
        self.blur = random.uniform(0.0, 0.14)
        self.contrast, self.offset = random.uniform(0.75, 1.1), random.uniform(-18, 18)
        self.noise = random.normal(0, random.uniform(1.0, 4.0), (SIDE, SIDE))


def draw_letters(letters: Sequence[str], generators: Sequence[np.random.Generator]) -> np.ndarray:
    """Images uint8 (n, 28, 28) of n letters, each varied by its numpy Generator."""
    draws = [_Draws(random) for random in generators]
    chance = SimpleNamespace(
        **{key: np.array([getattr(one, key) for one in draws]) for key in vars(draws[0])}
    )
    side = SIDE * SUPERSAMPLING
    ends, radii = _placed_hands(letters, chance)
    depth, normals = hand_renderer.surface(ends, radii, side)
    angle, height = chance.light.T
    flat = np.sqrt(1 - height * height)
    light = np.stack([flat * np.cos(angle), flat * np.sin(angle), height], axis=1)
    brightness, hit = hand_renderer.shade(depth, normals, light, chance.ambient)
    pictures = np.where(hit, brightness * _each(chance.skin), _backgrounds(chance, side))
    pictures = pictures.reshape(-1, SIDE, SUPERSAMPLING, SIDE, SUPERSAMPLING).mean(axis=(2, 4))
    pictures = _blurred(pictures, _each(chance.blur))
    pictures = (pictures - 128) * _each(chance.contrast) + 128 + _each(chance.offset) + chance.noise
    return np.clip(np.rint(pictures), 0, 255).astype(np.uint8)


def _each(values):
    """One value per image (n,) as (n, 1, 1)."""
    return values[:, None, None]


def _placed_hands(letters, chance):
    """Bones of varied poses in image units: ends (n, bones, 2, 3), radii (n, bones, 2)."""
    poses = [POSES[letter] for letter in letters]
    fingers = np.array([pose.fingers for pose in poses]) + chance.fingers
    thumb = np.array([pose.thumb for pose in poses]) + chance.thumb
    ends, radii = hand_renderer.bones(fingers, thumb, chance.thickness)
    attitudes = np.array([(pose.yaw, pose.pitch, pose.roll) for pose in poses]) + chance.attitude
    ends[:, -1, 1, :2] += chance.forearm
    ends = ends @ hand_renderer.rotation(*attitudes.T).swapaxes(1, 2)[:, None]
    hands = ends[:, :-1]  # centred without the forearm
    low, high = hands.min(axis=(1, 2)) - 0.1, hands.max(axis=(1, 2)) + 0.1
    extent = (high - low)[:, :2]
    scale = (chance.scale * np.minimum(2 / extent.max(axis=1), 1.45))[:, None]
    shift = chance.shift * np.maximum(1 - scale * extent / 2, 0.06) * 0.6
    ends = (ends - (low + high)[:, None, None] / 2) * scale[..., None, None]
    ends[..., :2] += shift[:, None, None]
    return ends, radii * scale[..., None]


def _backgrounds(chance, side):
    """Grey gradients with smooth texture, float (n, side, side); their mean is not that of the hand."""
    axis = np.linspace(-1, 1, side)
    hand = 0.75 * chance.skin
    near = np.abs(chance.level - hand) < LEAST_CONTRAST
    level = np.where(near, hand + np.copysign(LEAST_CONTRAST, chance.level - hand), chance.level)
    x, y = axis[None, None, :], axis[None, :, None]
    pictures = _each(level) + _each(chance.slope[:, 0]) * x + _each(chance.slope[:, 1]) * y
    for along, down, phase, amplitude in chance.waves.transpose(1, 2, 0)[..., None, None]:
        # sin(along x + phase + down y) from sines of the axes alone: a sine per pixel would cost more
        across, downwards = along * x + phase, down * y
        pictures += (amplitude * np.sin(across)) * np.cos(downwards)
        pictures += (amplitude * np.cos(across)) * np.sin(downwards)
    return pictures


def _blurred(pictures, share):
    """Mix each pixel with its neighbours: weights (share, 1 - 2 share, share) both ways."""
    for axis in (1, 2):
        before, here, after = hand_renderer.shifts(pictures, axis, 1)
        pictures = (1 - 2 * share) * here + share * (before + after)
    return pictures
