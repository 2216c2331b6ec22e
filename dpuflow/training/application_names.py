"""The networks of tf_keras.applications by name, and what they see of pixels; Keras is not imported."""

from typing import Any

from dpuflow.base.pixels import MODES

RAW: dict[str, Any] = {"subtract": 0, "divide": 1}
"""Pixels as they are: the network itself holds Rescaling or Normalization."""

_FAMILIES: dict[str, tuple[dict[str, Any], str]] = {
    "ConvNeXt": (RAW, "Tiny Small Base Large XLarge"),
    "DenseNet": (MODES["torch"], "121 169 201"),
    "EfficientNet": (RAW, "B0 B1 B2 B3 B4 B5 B6 B7"),
    "EfficientNetV2": (RAW, "B0 B1 B2 B3 S M L"),
    "Inception": (MODES["tf"], "V3 ResNetV2"),
    "MobileNetV3": (RAW, "Small Large"),
    "NASNet": (MODES["tf"], "Mobile Large"),
    "RegNetX": (RAW, "002 004 006 008 016 032 040 064 080 120 160 320"),
    "RegNetY": (RAW, "002 004 006 008 016 032 040 064 080 120 160 320"),
    "ResNetRS": (RAW, "50 101 152 200 270 350 420"),
    "VGG": (MODES["caffe"], "16 19"),
}

APPLICATIONS: dict[str, dict[str, Any]] = {
    **{f"{family}{size}": input_ for family, (input_, sizes) in _FAMILIES.items() for size in sizes.split()},
    **{f"ResNet{depth}": MODES["caffe"] for depth in (50, 101, 152)},
    **{f"ResNet{depth}V2": MODES["tf"] for depth in (50, 101, 152)},
    **dict.fromkeys(("MobileNet", "MobileNetV2", "Xception"), MODES["tf"]),
}
"""Name -> the input scaling (`base.pixels`) that its preprocess_input stands for."""

WITH_ALPHA = ("MobileNet", "MobileNetV2", "MobileNetV3Small", "MobileNetV3Large")
"""Those whose width is chosen."""
