"""Boxes from a detector's raw maps. `decode.py` needs NumPy alone: boards get this very file."""

ANCHORED = ("yolov3", "yolov5")
"""Kinds of heads that are trained here, and whose anchors may be found from boxes. Free of NumPy."""
