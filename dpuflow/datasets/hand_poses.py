"""The 24 static letters of the American manual alphabet as joint angles of a right hand.

Hand frame: origin at the wrist, y towards the fingers, x towards the thumb's side,
z out of the palm (towards whom the palm faces); the unit is the length of the palm.
Angles in degrees. Poses after the published description of the alphabet (which
fingers are straight, hooked, closed, crossed, and where the thumb lies).
"""

from dataclasses import dataclass

STRAIGHT = (2, 4, 3)
CLOSED = (86, 98, 55)
HOOKED = (12, 92, 55)
DRAPED = (58, 94, 6)
CURVED = (34, 44, 28)


@dataclass(frozen=True)
class Pose:
    """One letter.

    Attributes
    ----------
    fingers : for index, middle, ring, little finger: flexion of the knuckle (MCP),
        middle (PIP) and end joint (DIP), and abduction, positive towards the thumb.
    thumb : for metacarpal, proximal and end phalanx: (azimuth, elevation); azimuth
        in the palm plane from the fingers' direction (0) to the thumb's side (90),
        elevation out of the palm.
    yaw, pitch, roll : attitude of the hand: about its length axis (positive turns the
        palm to the viewer's right), about the horizontal axis (positive tips the
        fingers towards the viewer), in the image plane (positive clockwise).
    """

    fingers: tuple[tuple[float, float, float, float], ...]
    thumb: tuple[tuple[float, float], ...]
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0


def _finger(flexion, abduction=0):
    return (*flexion, abduction)


def _closed(count):
    return tuple(_finger(CLOSED) for _ in range(count))


ACROSS_FIST = ((25, 48), (-38, 42), (-72, 8))
BESIDE = ((42, 28), (12, 20), (2, 8))
ACROSS_PALM = ((12, 48), (-50, 22), (-72, 0))

POSES = {
    "A": Pose(_closed(4), BESIDE),
    "B": Pose(tuple(_finger(STRAIGHT, a) for a in (-2, -1, 1, 3)), ACROSS_PALM),
    "C": Pose(
        tuple(_finger(CURVED, a) for a in (0, 0, 0, 0)), ((48, 58), (18, 66), (-2, 52)), yaw=48, roll=-4
    ),
    "D": Pose(
        (_finger(STRAIGHT), _finger((62, 62, 40)), _finger((64, 64, 40)), _finger((66, 64, 40))),
        ((34, 62), (0, 62), (-16, 48)),
        yaw=32,
    ),
    "E": Pose(tuple(_finger((26, 112, 64), a) for a in (0, 0, 0, 0)), ((26, 44), (-42, 34), (-76, -4))),
    "F": Pose(
        (_finger((52, 66, 34), 2), _finger(STRAIGHT, 4), _finger(STRAIGHT, -5), _finger(STRAIGHT, -14)),
        ((40, 56), (12, 58), (-4, 42)),
        yaw=6,
    ),
    "G": Pose((_finger((10, 4, 3)), *_closed(3)), ((46, 46), (20, 34), (4, 8)), yaw=38, roll=82),
    "H": Pose(
        (_finger((8, 4, 3), -2), _finger((8, 4, 3), 2), *_closed(2)),
        ((26, 50), (-36, 40), (-66, 10)),
        yaw=18,
        roll=84,
    ),
    "I": Pose((*_closed(3), _finger(STRAIGHT, -8)), ACROSS_FIST),
    "K": Pose(
        (_finger(STRAIGHT, 8), _finger((36, 6, 4), -6), *_closed(2)), ((28, 52), (0, 44), (-8, 18)), yaw=-6
    ),
    "L": Pose((_finger(STRAIGHT, 2), *_closed(3)), ((66, 14), (84, 6), (88, 0))),
    "M": Pose(
        (*(_finger(DRAPED, a) for a in (-1, 0, 1)), _finger(CLOSED, -4)), ((20, 34), (-38, 16), (-56, 4))
    ),
    "N": Pose((*(_finger(DRAPED, a) for a in (-1, 1)), *_closed(2)), ((24, 38), (-20, 22), (-28, 16))),
    "O": Pose(
        tuple(_finger((58, 62, 36), a) for a in (0, 0, 0, 0)),
        ((30, 66), (4, 58), (-14, 34)),
        yaw=48,
        roll=-4,
    ),
    "P": Pose(
        (_finger((8, 4, 3), 8), _finger((50, 6, 4), -4), *_closed(2)),
        ((28, 52), (0, 44), (-8, 18)),
        yaw=14,
        pitch=14,
        roll=128,
    ),
    "Q": Pose((_finger((16, 6, 3)), *_closed(3)), ((48, 48), (22, 36), (6, 10)), yaw=34, pitch=8, roll=158),
    "R": Pose(
        (_finger((18, 6, 3), -17), _finger((0, 2, 2), 15), *_closed(2)), ((24, 50), (-40, 40), (-70, 6))
    ),
    "S": Pose(_closed(4), ((28, 56), (-46, 46), (-86, -2))),
    "T": Pose((_finger((62, 86, 45), 10), *_closed(3)), ((28, 56), (-12, 54), (-8, 2))),
    "U": Pose((_finger(STRAIGHT, -3), _finger(STRAIGHT, 2), *_closed(2)), ((24, 50), (-42, 40), (-72, 6))),
    "V": Pose((_finger(STRAIGHT, 13), _finger(STRAIGHT, -10), *_closed(2)), ((24, 50), (-42, 40), (-72, 6))),
    "W": Pose(
        (_finger(STRAIGHT, 14), _finger(STRAIGHT, 0), _finger(STRAIGHT, -15), _finger((82, 92, 40))),
        ((14, 54), (-48, 36), (-74, 0)),
    ),
    "X": Pose((_finger(HOOKED, 0), *_closed(3)), ((26, 52), (-40, 42), (-72, 6)), yaw=14),
    "Y": Pose((*_closed(3), _finger(STRAIGHT, -20)), ((62, 18), (66, 10), (66, 4))),
}
"""Letter -> Pose."""
