"""The `reference` quantizer: float Network + calibration images -> QuantizedNetwork + report.

Steps: fold, equalize, choose fix_points over calibration batches, search
better ones, refine roundings, diagnose. Every optional step is measured by the divergence
of the logits from the float network's on the calibration images. No TensorFlow is needed.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dpuflow.base.errors import UserError
from dpuflow.base.pixels import Scaling
from dpuflow.network import Network, QuantizedNetwork
from dpuflow.network.quantized_file import write_quantized
from dpuflow.ops.operator import Shape
from dpuflow.quantize import blocks, position_search, replacements
from dpuflow.quantize.answers import integer_values
from dpuflow.quantize.calibration_images import calibration_record, refuse_test_images
from dpuflow.quantize.diagnosis import OutputJudge, affordable_images, diagnose
from dpuflow.quantize.eval_graph import write_eval_graph
from dpuflow.quantize.quantization import Quantization
from dpuflow.quantize.settings import complete
from dpuflow.records import write_record

DIAGNOSIS_IMAGES = 500


def quantize(
    network: Network,
    calibration_images: ArrayLike | blocks.Images,
    settings: Mapping[str, Any] | None = None,
    input_scaling: Scaling | None = None,
    *,
    output_name: str | Mapping[str, str] | None = None,
    calibration_indices: Sequence[int] | np.ndarray | None = None,
    calibration_labels: ArrayLike | None = None,
    test_images: blocks.Images | Iterable[np.ndarray] | None = None,
    validation: tuple[blocks.Images, ArrayLike | None] | None = None,
    judge: OutputJudge | None = None,
    threads: int | None = None,
) -> tuple[QuantizedNetwork, dict[str, Any]]:
    """Quantize a network to INT8 with power-of-two steps.

    Parameters
    ----------
    network : as `network.network_file.load_network` or `tfgraph.graph_reader.read_network` read it; stays
        as it is.
    calibration_images : uint8 (N, H, W, C), training images: an array, or what reads them by slices;
        {input's name: such images} for several inputs.
    settings : see config/schemas/quantizer_reference.schema.yaml; None: defaults.
    input_scaling : network input = (pixel - subtract) / divide (`base.pixels`). None: 0, 255.
    output_name : what the evaluation graph calls its output, of several {output's name: node}; None: as the
        network does.
    calibration_indices, calibration_labels : recorded in the report.
    test_images : uint8 (N, H, W, C), or such arrays one after the other; a calibration image that equals
        one of these is a UserError.
    validation : (uint8 images, labels) from the training side, for the diagnosis; None: the
        calibration images. judge : of the outputs for validation's images, instead of labels.
    threads : cores to use (None: all that this process may use); results do not depend on it.

    Memory does not grow with the number of images: what does lies in temporary files. A caller that holds
    no reference to `network` itself saves its weights: `quantize(load_network(path), ...)`.

    Returns
    -------
    (QuantizedNetwork, report): report is the content of quantization.json.
    """
    settings = complete(settings)
    input_scaling = {"subtract": 0, "divide": 255, **(input_scaling or {})}
    images = checked_images(calibration_images, network)
    images = blocks.kept(blocks.first(images, settings["calibration"]["images"]))
    if test_images is not None:
        refuse_test_images(images, test_images)
    count = blocks.count(images)
    calibration_labels = None if calibration_labels is None else np.asarray(calibration_labels)[:count]
    calibration_indices = None if calibration_indices is None else calibration_indices[:count]
    nodes = _nodes(network, output_name)
    with blocks.on_cores(threads):
        quantization = Quantization(network, images, settings, input_scaling)
        del network  # its weights go when those of the equalized network take their place
        cost = quantization.replacements() if replacements.replaced(quantization.folding) else None
        outcome = quantization.run()
        report = {
            "quantizer": "reference",
            "settings": settings,
            "input_scaling": quantization.input_scaling,
            "nodes": nodes,
            "calibration": calibration_record(images, calibration_indices, calibration_labels),
            "folding": quantization.folding,
            "steps": outcome.steps,
            "votes": outcome.votes,
            "adjustments": outcome.adjustments,
        }
        if cost is not None:
            report["replacements"] = cost
        if settings["diagnosis"]:
            report["diagnosis"] = _diagnosis(outcome.quantized, images, calibration_labels, validation, judge)
    return outcome.quantized, report


def _nodes(network: Network, output_name: str | Mapping[str, str] | None) -> dict[str, Any]:
    """Names of the evaluation graph's ends: of the only one, or of several also all."""
    inputs, outputs = [layer.name for layer in network.inputs], list(network.outputs)
    nodes: dict[str, Any] = {"input": inputs[0], "output": outputs[0]}
    if len(inputs) > 1:
        nodes["inputs"] = inputs
    if len(outputs) > 1:
        names = output_name if isinstance(output_name, Mapping) else {}
        nodes["outputs"] = {name: names.get(name, name) for name in outputs}
        nodes["output"] = nodes["outputs"][outputs[0]]
    elif output_name:
        nodes["output"] = output_name if isinstance(output_name, str) else next(iter(output_name.values()))
    return nodes


def checked_images(images: ArrayLike | blocks.Images, network: Network) -> blocks.Images:
    """The calibration images as an array, or as one for each input by its name.

    UserError unless they are uint8 of the network's input shapes, equally many for every input.
    """
    if not isinstance(images, Mapping):
        return _checked(images, network.input.shape, "calibration images")
    if set(images) != {layer.name for layer in network.inputs}:
        names = ", ".join(layer.name for layer in network.inputs)
        raise UserError(
            f"calibration images: given for {', '.join(images)}; the network's inputs are {names}"
        )
    found = {
        layer.name: _checked(images[layer.name], layer.shape, f"calibration images of {layer.name}")
        for layer in network.inputs
    }
    counts = {name: len(array) for name, array in found.items()}
    if len(set(counts.values())) > 1:
        raise UserError(f"calibration images: as many for every input expected, got {counts}")
    return found


def _checked(given: Any, shape: Shape, what: str) -> blocks.Pixels:
    images = given if hasattr(given, "dtype") else np.asarray(given)
    if images.dtype != np.uint8 or images.shape[1:] != shape or not len(images):
        raise UserError(
            f"{what}: expected uint8 of shape (N, {', '.join(map(str, shape))}), "
            f"got {images.dtype} {images.shape}"
        )
    return images


def _diagnosis(
    quantized: QuantizedNetwork,
    images: blocks.Images,
    labels: np.ndarray | None,
    validation: tuple[blocks.Images, ArrayLike | None] | None,
    judge: OutputJudge | None,
) -> dict[str, Any]:
    source = "calibration"
    if validation is not None and blocks.count(validation[0]):
        images, source = validation[0], "validation"
        labels = None if validation[1] is None else np.asarray(validation[1])
    else:
        judge = None
    count = blocks.count(images)
    numbers = np.arange(0, count, max(1, count // DIAGNOSIS_IMAGES))[:DIAGNOSIS_IMAGES]  # evenly
    numbers = numbers[blocks.evenly(len(numbers), affordable_images(quantized.network, len(numbers)))]
    x = blocks.Pictures(blocks.kept(blocks.chosen(images, numbers)), quantized.input_scaling)
    labels = None if labels is None else labels[numbers]
    if not all(layer.operator.quantized for layer in quantized.network.outputs.values()):
        judge = None  # the outputs are made of what is compared here on the CPU: a sigmoid at the end
    judged = None if judge is None else judge.of(numbers)
    measure = {} if judge is None or judged is None else {"measure": judge.name}
    return {"source": source, **measure, **diagnose(quantized, x, labels, judged)}


def predict(quantized: QuantizedNetwork, images: blocks.Images, threads: int | None = None) -> np.ndarray:
    """Integer logits of uint8 images: float32 (N, classes) of int8 values."""
    name = position_search.logits_name(quantized.network)
    with blocks.on_cores(threads):
        return integer_values(quantized, blocks.Pictures(images, quantized.input_scaling), [name])[name]


def write_artifacts(
    quantized: QuantizedNetwork,
    report: Mapping[str, Any],
    model_path: Path | str,
    eval_graph_path: Path | str,
    report_path: Path | str,
) -> None:
    """Write quantized_model.h5, quantize_eval_model.pb and quantization.json."""
    write_quantized(model_path, quantized)
    named = report["nodes"]
    nodes = write_eval_graph(eval_graph_path, quantized, named.get("outputs", named["output"]))
    write_record(report_path, "quantization.schema.yaml", {**report, "eval_graph": nodes})
