"""Draw an articulated hand: joint angles -> bones -> shaded grey image.

A hand is a set of round bones (capsules with two radii). In orthographic view each
covers the pixels near its axis; the one nearest to the viewer shows, shaded by its
surface normal (Lambert) and darkened in creases. All in NumPy, a few milliseconds
an image.
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
BONES = 4 * 3 + 3 + 4 + 2 + 1
"""Fingers, thumb, metacarpals, two across the palm, forearm."""


def finger_joints(angles):
    """Joint positions (4 fingers, 4 points, 3) in the hand frame from degrees (4, 4).

    Each row: flexion of MCP, PIP, DIP and abduction (see hand_poses.Pose).
    """
    angles = np.radians(angles)
    bend = np.cumsum(angles[:, :3], axis=1)
    side = angles[:, 3:]
    along = np.cos(bend)
    steps = (
        np.stack([along * np.sin(side), along * np.cos(side), np.sin(bend)], axis=2) * PHALANGES[:, :, None]
    )
    return KNUCKLES[:, None] + np.concatenate([np.zeros((4, 1, 3)), np.cumsum(steps, axis=1)], axis=1)


def thumb_joints(angles):
    """Joint positions (4, 3) of the thumb from (azimuth, elevation) in degrees (3, 2)."""
    azimuth, elevation = np.radians(angles).T
    flat = np.cos(elevation)
    steps = np.stack([flat * np.sin(azimuth), flat * np.cos(azimuth), np.sin(elevation)], axis=1)
    return THUMB_BASE + np.concatenate([np.zeros((1, 3)), np.cumsum(steps * THUMB_LENGTHS[:, None], axis=0)])


def bones(fingers, thumb, thickness=1.0):
    """Capsules of a hand: ends (BONES, 2, 3) and radii (BONES, 2), forearm last.

    fingers : degrees (4, 4); thumb : degrees (3, 2); thickness scales all radii.
    """
    ends, radii = [], []
    for joints, radius in zip(finger_joints(fingers), FINGER_RADII, strict=True):
        ends += [(joints[i], joints[i + 1]) for i in range(3)]
        radii += [(radius[i], radius[i + 1]) for i in range(3)]
    joints = thumb_joints(thumb)
    ends += [(joints[i], joints[i + 1]) for i in range(3)]
    radii += [(THUMB_RADII[i], THUMB_RADII[i + 1]) for i in range(3)]
    for knuckle in KNUCKLES:
        ends.append((WRIST + (0.4 * knuckle[0], 0.08, 0), knuckle))
        radii.append((0.17, 0.14))
    ends += [
        ((0.16, 0.55, 0.02), (-0.16, 0.5, 0.02)),
        ((-0.22, 0.2, 0.03), (-0.27, 0.7, 0.02)),
        (WRIST, ELBOW),
    ]
    radii += [(0.17, 0.17), (0.16, 0.14), (0.23, 0.33)]
    return np.array([np.stack(pair) for pair in ends]), np.array(radii) * thickness


def rotation(yaw, pitch, roll):
    """Rotation matrix (3, 3) for the attitude of hand_poses.Pose, degrees."""
    y, p, r = np.radians((yaw, pitch, roll))
    about_y = np.array([(np.cos(y), 0, np.sin(y)), (0, 1, 0), (-np.sin(y), 0, np.cos(y))])
    about_x = np.array([(1, 0, 0), (0, np.cos(p), -np.sin(p)), (0, np.sin(p), np.cos(p))])
    about_z = np.array([(np.cos(r), np.sin(r), 0), (-np.sin(r), np.cos(r), 0), (0, 0, 1)])
    return about_z @ about_x @ about_y


def surface(ends, radii, side):
    """Nearest surface of capsules seen along -z on a side x side grid over [-1, 1]^2.

    ends (n, 2, 3) and radii (n, 2), in units of half the image's side; y up.
    Returns depth (side, side), -inf where nothing is hit, and unit normals (3, side, side).

    Each capsule is taken as the ball of interpolated radius around the axis point
    nearest in projection, and the balls at both ends: exact for bones parallel to the
    image, and close for tilted ones, whose visible end is then an end ball.
    """
    axis = ((np.arange(side, dtype=np.float32) + 0.5) * (2.0 / side) - 1.0).astype(np.float32)
    depth = np.full((side, side), -np.inf, np.float32)
    normals = np.zeros((3, side, side), np.float32)
    for (a, b), (ra, rb) in zip(ends.astype(np.float32), radii.astype(np.float32), strict=True):
        window = _window(a, b, max(ra, rb), side)
        if window is None:
            continue
        rows, columns = window
        x, y = axis[columns][None, :], -axis[rows][:, None]
        delta = b - a
        length = delta[0] * delta[0] + delta[1] * delta[1] + np.float32(1e-9)
        t = np.clip(((x - a[0]) * delta[0] + (y - a[1]) * delta[1]) / length, 0, 1)
        tip = b if b[2] > a[2] else a
        balls = [(a[0] + t * delta[0], a[1] + t * delta[1], a[2] + t * delta[2], ra + t * (rb - ra))]
        if abs(delta[2]) > 0.5 * np.sqrt(length):
            balls.append((*tip, rb if b[2] > a[2] else ra))
        for cx, cy, cz, r in balls:
            dx, dy = x - cx, y - cy
            height = r * r - dx * dx - dy * dy
            rise = np.sqrt(np.maximum(height, 0))
            z = cz + rise
            nearer = (height > 0) & (z > depth[rows, columns])
            inverse = np.float32(1) / r
            np.copyto(depth[rows, columns], z, where=nearer)
            for k, component in enumerate((dx, dy, rise)):
                np.copyto(normals[k, rows, columns], component * inverse, where=nearer)
    return depth, normals


def _window(a, b, radius, side):
    """Slices (rows, columns) of the pixels a capsule can touch, or None."""
    half = side / 2
    left = int((min(a[0], b[0]) - radius + 1) * half)
    right = int((max(a[0], b[0]) + radius + 1) * half) + 2
    top = int((1 - max(a[1], b[1]) - radius) * half)
    bottom = int((1 - min(a[1], b[1]) + radius) * half) + 2
    rows, columns = slice(max(top, 0), min(bottom, side)), slice(max(left, 0), min(right, side))
    return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None


def shade(depth, normals, light, ambient=0.35):
    """Brightness (side, side) of the surface, 0 where nothing is hit.

    light : unit vector (3,) towards the light. Creases get darker: a pixel is dimmed
    by how much its surroundings stand out in front of it.
    """
    hit = np.isfinite(depth)
    lambert = np.maximum(np.tensordot(light.astype(np.float32), normals, 1), 0)
    filled = np.where(hit, depth, np.float32(-1.0))
    nearby = box_mean(box_mean(filled, 0), 1)
    crease = np.clip((nearby - filled) * 2.2, 0, 0.45)
    brightness = (ambient + (1 - ambient) * lambert) * (1 - crease)
    return np.where(hit, brightness, 0).astype(np.float32), hit


def box_mean(image, axis, reach=2):
    """Mean over 2 * reach + 1 neighbours along an axis, borders repeated."""
    padded = np.pad(image, [(reach, reach) if k == axis else (0, 0) for k in range(2)], mode="edge")
    size = image.shape[axis]
    parts = [np.take(padded, range(k, k + size), axis=axis) for k in range(2 * reach + 1)]
    return sum(parts[1:], parts[0]) / np.float32(len(parts))
