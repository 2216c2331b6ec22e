"""What a data set asks of a network. Free of NumPy: Snakemake looks at each start."""

TASKS = ("classification", "detection", "segmentation")
"""The first where an entry does not say."""
TASK_OF = {"voc": "detection", "coco": "detection", "yolo": "detection", "masks": "segmentation"}
"""Value of the key annotations.format -> the task that it is for."""
NO_CLASS = 255
"""Pixels of a mask that belong to no class: neither learned nor counted."""
