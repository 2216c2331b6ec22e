"""Boxes from a detector's raw maps. `decode.py` needs NumPy alone: boards get this very file."""
