"""dpuflow: from a CSV of images to an accuracy report off a DPU board."""

__version__ = "0.1.0"
