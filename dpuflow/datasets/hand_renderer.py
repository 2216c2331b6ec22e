"""Draw articulated hands: joint angles -> bones -> shaded grey images, many at a time.

A hand is a set of round bones (capsules with two radii). In orthographic view each
covers the pixels near its axis; the one nearest to the viewer shows, shaded by its
surface normal (Lambert) and darkened in creases. All in NumPy; an image costs about a
millisecond when some dozens are drawn in one call (an array's first dimension counts
the images), because a bone covers too few pixels to be worth a call of its own.
"""

import numpy as np

# Knuckles (x, y, z) of index, middle, ring, little finger; phalanx lengths; radii.
KNUCKLES = np.array([(0.33, 0.98, 0.0), (0.11, 1.02, 0.02), (-0.11, 0.98, 0.01), (-0.31, 0.88, -0.02)])
PHALANGES = np.array([(0.46, 0.28, 0.2), (0.52, 0.32, 0.21), (0.47, 0.3, 0.21), (0.36, 0.21, 0.19)])
FINGER_RADII = np.array(
    [
        (0.125, 0.112, 0.1, 0.085),
        (0.128, 0.115, 0.102, 0.087),
        (0.12, 0.11, 0.098, 0.083),
        (0.108, 0.098, 0.088, 0.075),
    ]
)
THUMB_BASE = np.array((0.2, 0.2, 0.05))
THUMB_LENGTHS = np.array((0.4, 0.34, 0.28))
THUMB_RADII = np.array((0.17, 0.14, 0.125, 0.1))
WRIST = np.array((0.0, 0.0, 0.0))
ELBOW = np.array((0.0, -2.2, -0.05))
PALM = np.array(
    [
        *((WRIST + (0.4 * x, 0.08, 0), (x, y, z)) for x, y, z in KNUCKLES),
        ((0.16, 0.55, 0.02), (-0.16, 0.5, 0.02)),
        ((-0.22, 0.2, 0.03), (-0.27, 0.7, 0.02)),
        (WRIST, ELBOW),
    ]
)
"""Bones that the fingers do not move: four metacarpals, two across the palm, the forearm."""
RADII = np.concatenate(
    [
        np.stack([FINGER_RADII[:, :-1], FINGER_RADII[:, 1:]], 2).reshape(12, 2),
        np.stack([THUMB_RADII[:-1], THUMB_RADII[1:]], 1),
        [(0.17, 0.14)] * 4,
        [(0.17, 0.17), (0.16, 0.14), (0.23, 0.33)],
    ]
)
"""Radii at both ends of every bone: fingers, thumb, PALM."""
BONES = len(RADII)


def finger_joints(angles: np.ndarray) -> np.ndarray:
    """Joint positions (n, 4 fingers, 4 points, 3) in the hand frame from degrees (n, 4, 4).

    Each row: flexion of MCP, PIP, DIP and abduction (see hand_poses.Pose).
    """
    angles = np.radians(angles)
    bend = np.cumsum(angles[..., :3], axis=-1)
    side = angles[..., 3:]
    along = np.cos(bend)
    steps = np.stack([along * np.sin(side), along * np.cos(side), np.sin(bend)], axis=-1)
    return _chain(KNUCKLES, steps * PHALANGES[..., None])


def thumb_joints(angles: np.ndarray) -> np.ndarray:
    """Joint positions (n, 4, 3) of the thumb from (azimuth, elevation) in degrees (n, 3, 2)."""
    azimuth, elevation = np.moveaxis(np.radians(angles), -1, 0)
    flat = np.cos(elevation)
    steps = np.stack([flat * np.sin(azimuth), flat * np.cos(azimuth), np.sin(elevation)], axis=-1)
    return _chain(THUMB_BASE, steps * THUMB_LENGTHS[:, None])


def _chain(start, steps):
    """Points (..., k + 1, 3) from a start (..., 3) along steps (..., k, 3)."""
    return start[..., None, :] + np.concatenate(
        [np.zeros_like(steps[..., :1, :]), np.cumsum(steps, axis=-2)], axis=-2
    )


def bones(fingers: np.ndarray, thumb: np.ndarray, thickness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Capsules of n hands: ends (n, BONES, 2, 3) and radii (n, BONES, 2), forearm last.

    fingers : degrees (n, 4, 4); thumb : degrees (n, 3, 2); thickness (n,) scales all radii.
    """
    count = len(fingers)
    parts = [
        np.stack([joints[..., :-1, :], joints[..., 1:, :]], axis=-2).reshape(count, -1, 2, 3)
        for joints in (finger_joints(fingers), thumb_joints(thumb))
    ]
    ends = np.concatenate([*parts, np.broadcast_to(PALM, (count, *PALM.shape))], axis=1)
    return ends, RADII * thickness[:, None, None]


def rotation(yaw: np.ndarray, pitch: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """Rotation matrices (n, 3, 3) for attitudes of hand_poses.Pose, each (n,) in degrees."""
    y, p, r = np.radians(yaw), np.radians(pitch), np.radians(roll)
    zero, one = np.zeros_like(y), np.ones_like(y)
    about_y = ((np.cos(y), zero, np.sin(y)), (zero, one, zero), (-np.sin(y), zero, np.cos(y)))
    about_x = ((one, zero, zero), (zero, np.cos(p), -np.sin(p)), (zero, np.sin(p), np.cos(p)))
    about_z = ((np.cos(r), np.sin(r), zero), (-np.sin(r), np.cos(r), zero), (zero, zero, one))
    z, x, y = (np.moveaxis(np.array(matrix), -1, 0) for matrix in (about_z, about_x, about_y))
    return z @ x @ y


def surface(ends: np.ndarray, radii: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Nearest surface of capsules seen along -z on a side x side grid over [-1, 1]^2.

    ends (n, bones, 2, 3) and radii (n, bones, 2), in units of half the image's side; y up.
    Returns depth (n, side, side), -inf where nothing is hit, and unit normals (3, n, side, side).

    Each capsule is taken as the ball of interpolated radius around the axis point
    nearest in projection, and the balls at both ends: exact for bones parallel to the
    image, and close for tilted ones, whose visible end is then an end ball.
    """
    depth = np.full((len(ends), side, side), -np.inf, np.float32)
    normals = np.zeros((3, *depth.shape), np.float32)
    images = np.arange(len(ends))
    for bone in range(ends.shape[1]):
        (a, b), (ra, rb) = ends[:, bone].swapaxes(0, 1), radii[:, bone].T
        _cover(depth, normals, images, a, b, ra, rb)
        delta = b - a
        tilted = np.flatnonzero(np.abs(delta[:, 2]) > 0.5 * np.hypot(delta[:, 0], delta[:, 1]))
        if len(tilted):
            in_front = delta[tilted, 2] > 0
            tip = np.where(in_front[:, None], b[tilted], a[tilted])
            radius = np.where(in_front, rb[tilted], ra[tilted])
            _cover(depth, normals, tilted, tip, tip, radius, radius)
    return depth, normals


def _cover(depth, normals, images, a, b, ra, rb):
    """Draw one capsule into each of `images` where it is nearer than what is there.

    a, b : ends (k, 3); ra, rb : radii (k,). A ball has both ends at one place.
    """
    side = depth.shape[1]
    axis = ((np.arange(side, dtype=np.float32) + 0.5) * (2.0 / side) - 1.0).astype(np.float32)
    rows, columns = _windows(a, b, np.maximum(ra, rb), side)
    x, y = axis[columns][:, None, :], -axis[rows][:, :, None]
    (ax, ay, az), delta = (v.astype(np.float32).T[..., None, None] for v in (a, b - a))
    start, growth = (v.astype(np.float32)[:, None, None] for v in (ra, rb - ra))
    length = delta[0] * delta[0] + delta[1] * delta[1] + np.float32(1e-9)
    t = np.clip(((x - ax) * delta[0] + (y - ay) * delta[1]) / length, 0, 1)
    r = start + t * growth
    dx, dy = x - (ax + t * delta[0]), y - (ay + t * delta[1])
    height = r * r - dx * dx - dy * dy
    rise = np.sqrt(np.maximum(height, 0))
    z = az + t * delta[2] + rise
    pixels = images[:, None, None] * (side * side) + rows[:, :, None] * side + columns[:, None, :]
    nearer = (height > 0) & (z > depth.reshape(-1)[pixels])
    hits, inverse = pixels[nearer], np.float32(1) / r[nearer]
    depth.reshape(-1)[hits] = z[nearer]
    for normal, component in zip(normals, (dx, dy, rise), strict=True):
        normal.reshape(-1)[hits] = component[nearer] * inverse


def _windows(a, b, radius, side):
    """Rows (k, height) and columns (k, width) of pixels that hold all that k capsules can touch.

    All windows have the size of the largest, so that they are one array.
    """
    half = side / 2
    spans = []
    for low, high in (
        (1 - np.maximum(a[:, 1], b[:, 1]) - radius, 1 - np.minimum(a[:, 1], b[:, 1]) + radius),
        (np.minimum(a[:, 0], b[:, 0]) - radius + 1, np.maximum(a[:, 0], b[:, 0]) + radius + 1),
    ):
        first = np.clip(np.floor(low * half).astype(int), 0, side)
        last = np.clip(np.floor(high * half).astype(int) + 2, 0, side)
        size = max(1, (last - first).max())
        spans.append(np.minimum(first, side - size)[:, None] + np.arange(size))
    return spans


def shade(
    depth: np.ndarray, normals: np.ndarray, light: np.ndarray, ambient: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Brightness (n, side, side) of the surface, 0 where nothing is hit, and what is hit.

    light : unit vectors (n, 3) towards the light; ambient (n,). Creases get darker: a pixel
    is dimmed by how much its surroundings stand out in front of it.
    """
    hit = np.isfinite(depth)
    lx, ly, lz = light.astype(np.float32).T[..., None, None]
    lambert = np.maximum(lx * normals[0] + ly * normals[1] + lz * normals[2], 0)
    filled = np.where(hit, depth, np.float32(-1.0))
    nearby = box_mean(box_mean(filled, 1), 2)
    crease = np.clip((nearby - filled) * 2.2, 0, 0.45)
    ambient = ambient.astype(np.float32)[:, None, None]
    return np.where(hit, (ambient + (1 - ambient) * lambert) * (1 - crease), 0), hit


def box_mean(images: np.ndarray, axis: int, reach: int = 2) -> np.ndarray:
    """Mean over 2 * reach + 1 neighbours along an axis, borders repeated."""
    shifted = shifts(images, axis, reach)
    return sum(shifted[1:], shifted[0]) / np.float32(len(shifted))


def shifts(images: np.ndarray, axis: int, reach: int) -> list[np.ndarray]:
    """`images` moved by -reach .. reach pixels along an axis, borders repeated: list of views."""
    first, last = np.take(images, [0], axis), np.take(images, [-1], axis)
    padded = np.concatenate([first] * reach + [images] + [last] * reach, axis)
    size, before = images.shape[axis], (slice(None),) * axis
    return [padded[(*before, slice(k, k + size))] for k in range(2 * reach + 1)]
