"""Hands drawn as the embedded data set draws them, with the class of each pixel: a small data set for
segmentation.

    python -m dpuflow.datasets.hand_masks FOLDER [PICTURES] [SEED]

writes FOLDER/train and FOLDER/test (a fifth) with images/N.png and masks/N.png: 0 background, 1 hand.
config/segmentation.yaml trains a small UNet on it.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from dpuflow.datasets import hand_renderer, synthetic_signs
from dpuflow.datasets.hand_poses import POSES

SIDE = 64
AT_ONCE = 64


def draw(numbers: range, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(pictures, masks), uint8 (n, SIDE, SIDE), by number; each is a letter's hand, varied by chance."""
    letters = sorted(POSES)
    draws = [synthetic_signs._Draws(np.random.default_rng([seed, number])) for number in numbers]
    drawn = {key: np.array([getattr(one, key) for one in draws]) for key in vars(draws[0])}
    chance = SimpleNamespace(**drawn)
    ends, radii = synthetic_signs._placed_hands([letters[n % len(letters)] for n in numbers], chance)
    angle, height = chance.light.T
    flat = np.sqrt(1 - height * height)
    light = np.stack([flat * np.cos(angle), flat * np.sin(angle), height], axis=1)

    depth, normals = hand_renderer.surface(ends, radii, SIDE)
    brightness, hit = hand_renderer.shade(depth, normals, light, chance.ambient)
    skin, background = chance.skin[:, None, None], synthetic_signs._backgrounds(chance, SIDE)
    pictures = np.where(hit, brightness * skin, background)
    noise = np.random.default_rng([seed, numbers[0], 1]).normal(0, 3, pictures.shape)
    contrast, offset = chance.contrast[:, None, None], chance.offset[:, None, None]
    pictures = (pictures - 128) * contrast + 128 + offset + noise
    return np.clip(np.rint(pictures), 0, 255).astype(np.uint8), hit.astype(np.uint8)


def write(folder: Path, pictures: int, seed: int) -> None:
    """Draw and write all."""
    from PIL import Image

    for start in range(0, pictures, AT_ONCE):
        numbers = range(start, min(start + AT_ONCE, pictures))
        for number, picture, mask in zip(numbers, *draw(numbers, seed), strict=True):
            part = folder / ("test" if number % 5 == 4 else "train")
            for kind, values in (("images", picture), ("masks", mask)):
                (part / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(part / kind / f"{number:05d}.png")


if __name__ == "__main__":
    given = sys.argv[1:]
    if not given:
        sys.exit(__doc__)
    write(Path(given[0]), *(int(word) for word in [*given[1:], *("1000", "1")[len(given) - 1 :]]))
