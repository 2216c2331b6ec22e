"""`synthetic_signs`: drawn hands in the form of Sign Language MNIST, for use offline.

The 24 static letters (labels 0..24 without 9), 28x28 grey. Every image has its own
random stream, seeded by (seed, part, index): image i is the same however many are
drawn and in whatever blocks, and the training and test parts share no stream. These
are drawings: accuracy on them says nothing about photographs.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

from dpuflow.datasets import hand_renderer
from dpuflow.datasets.hand_poses import POSES
from dpuflow.datasets.labels import sign_mnist_labels

SIDE = 28
SUPERSAMPLING = 2
PARTS = {"train": 0, "test": 1}
DEFAULT_COUNTS = {"train": 12000, "test": 2400}
BLOCK = 480
"""Images drawn at a time; a multiple of the 24 letters."""
LEAST_CONTRAST = 55
"""Grey levels between the mean background and the mean hand."""

_LABELS = sign_mnist_labels()


def labels_of_rows(start, stop, part, seed):
    """Labels uint8 of images start..stop-1: each 24 in a row hold every letter once, shuffled."""
    present = np.array(_LABELS.present, np.uint8)
    first, last = start // len(present), -(-stop // len(present))
    deals = [_generator(seed, part, deal, 1).permutation(present) for deal in range(first, last)]
    offset = first * len(present)
    return np.concatenate([*deals, present[:0]])[start - offset : stop - offset]


def draw(start, stop, part, seed):
    """Draw images start..stop-1: images uint8 (n, 28, 28, 1), labels uint8 (n,).

    part : "train" or "test". seed : int >= 0.
    """
    labels = labels_of_rows(start, stop, part, seed)
    images = np.empty((len(labels), SIDE, SIDE, 1), np.uint8)
    for row, label in enumerate(labels):
        images[row, :, :, 0] = draw_letter(_LABELS.name(label), _generator(seed, part, start + row, 0))
    return images, labels


def drawn_blocks(count, part, seed, processes=None):
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


def draw_letter(letter, random):
    """One image uint8 (28, 28) of a letter, varied by the numpy Generator `random`."""
    side = SIDE * SUPERSAMPLING
    ends, radii = _placed_hand(POSES[letter], random)
    depth, normals = hand_renderer.surface(ends, radii, side)
    angle, height = random.uniform(0, 2 * np.pi), random.uniform(0.45, 0.95)
    flat = np.sqrt(1 - height * height)
    light = np.array((flat * np.cos(angle), flat * np.sin(angle), height))
    brightness, hit = hand_renderer.shade(depth, normals, light, random.uniform(0.25, 0.5))
    skin = random.uniform(120, 235)
    picture = np.where(hit, brightness * skin, _background(random, side, 0.75 * skin))
    picture = picture.reshape(SIDE, SUPERSAMPLING, SIDE, SUPERSAMPLING).mean(axis=(1, 3))
    picture = _blur(picture, random.uniform(0.0, 0.14))
    contrast, offset = random.uniform(0.75, 1.1), random.uniform(-18, 18)
    picture = (picture - 128) * contrast + 128 + offset
    picture += random.normal(0, random.uniform(1.0, 4.0), picture.shape)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _placed_hand(pose, random):
    """Bones of a varied pose in image units: ends (n, 2, 3), radii (n, 2)."""
    fingers = np.array(pose.fingers) + random.normal(0, 1, (4, 4)) * (3, 3, 3, 1.2)
    thumb = np.array(pose.thumb) + random.normal(0, 2.5, (3, 2))
    ends, radii = hand_renderer.bones(fingers, thumb, random.uniform(0.95, 1.2))
    attitude = hand_renderer.rotation(
        pose.yaw + random.normal(0, 6), pose.pitch + random.normal(0, 5), pose.roll + random.normal(0, 6)
    )
    ends[-1, 1, :2] += random.normal(0, 0.25, 2)  # the forearm bends at the wrist
    ends = ends @ attitude.T
    hand = ends[:-1]  # centred without the forearm
    low, high = hand.min(axis=(0, 1)) - 0.1, hand.max(axis=(0, 1)) + 0.1
    scale = random.uniform(0.8, 1.0) * min(2 / (high - low)[:2].max(), 1.45)
    shift = random.uniform(-1, 1, 2) * np.maximum(1 - scale * (high - low)[:2] / 2, 0.06) * 0.6
    ends = (ends - (low + high) / 2) * scale
    ends[..., :2] += shift
    return ends, radii * scale


def _background(random, side, hand):
    """A grey gradient with smooth texture, float (side, side); its mean is not that of the hand."""
    axis = np.linspace(-1, 1, side)
    slope = random.normal(0, 18, 2)
    level = random.uniform(30, 225)
    if abs(level - hand) < LEAST_CONTRAST:
        level = hand + np.copysign(LEAST_CONTRAST, level - hand)
    picture = level + slope[0] * axis[None, :] + slope[1] * axis[:, None]
    for _ in range(2):
        wave = random.normal(0, 4, 2)
        phase = random.uniform(0, 2 * np.pi)
        picture += random.uniform(0, 10) * np.sin(wave[0] * axis[None, :] + wave[1] * axis[:, None] + phase)
    return picture


def _blur(picture, share):
    """Mix each pixel with its neighbours: weights (share, 1 - 2 share, share) both ways."""
    for axis in (0, 1):
        padded = np.pad(picture, [(1, 1) if k == axis else (0, 0) for k in range(2)], mode="edge")
        before, after = np.split(padded, [2], axis)[1], np.split(padded, [picture.shape[axis]], axis)[0]
        picture = (1 - 2 * share) * picture + share * (before + after)
    return picture
