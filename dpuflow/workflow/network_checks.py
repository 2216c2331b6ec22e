"""Do the layer lists of a configuration fit their images and their targets? Asked before anything is trained.

Apart from `config_checks`, because it needs NumPy and the first line of each CSV: asked once, not in
each job.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from dpuflow.base.errors import UserError
from dpuflow.base.outputs import ONLY
from dpuflow.compiler import target_check
from dpuflow.compiler.target_check import enforce
from dpuflow.datasets.first_look import image_shape
from dpuflow.datasets.labels import MAX_PICTURE_LABEL, labels_of
from dpuflow.decoding.anchors import check_fits
from dpuflow.dpuczdx8g.native import limits
from dpuflow.training.layer_shapes import network_of
from dpuflow.workflow.config import Settings, expand_runs

CHECKS = {"reference": target_check.check, "native": limits.check}
"""Compilers of our own, and what each refuses; the vendor's leave to the CPU what they like."""


def unfit_networks(config: Mapping[str, Any]) -> list[str]:
    """Messages about layer lists whose shapes do not fit, or that the target of a run cannot run.

    Said before anything is trained, by the rule that the compiler applies afterwards. Left out: data sets
    whose images are not at hand, targets with `on_cpu` other than error, the vendor's compilers.
    """
    settings = Settings(config)
    messages: dict[str, None] = {}
    shape_of = cache(lambda name: image_shape(settings.dataset(name)))
    for run in expand_runs(config):
        shape, model = shape_of(run.dataset), settings.model(run.model)
        name = run.model.partition("-s")[0]
        if "starts_from" in model:
            name, model = model["starts_from"], settings.model(model["starts_from"])
        if "layers" not in model or shape is None:
            continue
        entry = settings.dataset(run.dataset)
        if entry["source"]["kind"] == "pictures" and "class_names" not in entry:
            continue  # only a job counts the folders
        try:
            classes = labels_of(entry.get("class_names"), MAX_PICTURE_LABEL).outputs
            network = network_of(model["layers"], shape, classes, name, entry.get("task", "classification"))
            if entry.get("task") == "detection":
                shapes = [layer.shape for layer in network.outputs.values()]
                # the names that `training.model_builder` gives them
                heads = {f"head{k}": head for k, head in enumerate(shapes, 1)}
                heads = heads if len(shapes) > 1 else {ONLY: shapes[0]}
                own = run.model.partition("-s")[0]
                key = own if "decode" in settings.model(own) else name
                check_fits(settings.decode(own), classes, heads, shape[:2], f"models.{key}.decode")
            target = settings.target(run.target)
            if target["compiler"] in CHECKS and target["on_cpu"] == "error":
                hardware = settings.hardware(run.target)
                enforce(CHECKS[target["compiler"]](network, hardware), "error", hardware)
        except UserError as error:
            size = " x ".join(map(str, shape))
            messages[f"{error} (on the {size} images of {run.dataset})"] = None
    return list(messages)
