"""The `reference` quantizer: frozen GraphDef + calibration images -> QuantizedNetwork + report.

Steps: read the graph, fold, choose positions over calibration batches, align and repair
them. No TensorFlow is needed.
"""

import numpy as np

from dpuflow.errors import UserError
from dpuflow.files import write_json
from dpuflow.network import QuantizedNetwork
from dpuflow.numerics import input_table, scale_pixels
from dpuflow.quantize import alignment, calibration, engine
from dpuflow.quantize.calibration_images import calibration_record, refuse_test_images
from dpuflow.quantize.compat_vai_q import choose_positions
from dpuflow.quantize.eval_graph import write_eval_graph
from dpuflow.quantize.folding import fold
from dpuflow.quantize.settings import complete
from dpuflow.quantized_file import write_quantized
from dpuflow.tfgraph.graph_reader import read_network_and_nodes


def quantize(
    frozen_path,
    calibration_images,
    settings=None,
    input_scaling=None,
    *,
    name=None,
    input_name=None,
    output_name=None,
    calibration_indices=None,
    calibration_labels=None,
    test_images=None,
):
    """Quantize a frozen graph to INT8 with power-of-two steps.

    Parameters
    ----------
    frozen_path : frozen GraphDef in the supported op set (`tfgraph.node_translation.HANDLERS`).
    calibration_images : uint8 (N, H, W, C), training images.
    settings : see config/schemas/quantizer_reference.schema.yaml; None: defaults.
    input_scaling : {"subtract", "divide"}: network input = (pixel - subtract) / divide. None: 0, 255.
    name, input_name, output_name : of the network and its nodes; None: discovered.
    calibration_indices, calibration_labels : recorded in the report.
    test_images : uint8; a calibration image that equals one of these is a UserError.

    Returns
    -------
    (QuantizedNetwork, report): report is the content of quantization.json.
    """
    settings = complete(settings)
    input_scaling = {"subtract": 0, "divide": 255, **(input_scaling or {})}
    network, nodes = read_network_and_nodes(frozen_path, input_name, output_name, name=name)
    images = np.asarray(calibration_images)[: settings["calibration"]["images"]]
    if images.dtype != np.uint8 or images.shape[1:] != network.input.shape or not len(images):
        raise UserError(
            f"calibration images: expected uint8 of shape (N, {', '.join(map(str, network.input.shape))}), "
            f"got {images.dtype} {images.shape}"
        )
    if test_images is not None:
        refuse_test_images(images, test_images)
    x = scale_pixels(images, input_scaling)
    folded, folding = fold(network, settings["batch_norm_after_activation"])
    method, batch = settings["method"], settings["calibration"]["batch"]
    if settings["compat"] == "vai_q":
        positions, weights, biases, votes, adjustments = choose_positions(folded, x, method, batch)
    else:
        weights, biases = calibration.quantize_parameters(folded, method)
        positions, votes = calibration.vote(folded, weights, biases, x, method, batch)
        adjustments = alignment.align_activations(folded, positions)
        adjustments += alignment.repair_shifts(folded, positions, weights, biases)
    quantized = QuantizedNetwork(folded, positions, weights, biases, input_scaling)
    report = {
        "quantizer": "reference",
        "settings": settings,
        "input_scaling": input_scaling,
        "nodes": nodes,
        "calibration": calibration_record(
            images,
            None if calibration_indices is None else calibration_indices[: len(images)],
            None if calibration_labels is None else calibration_labels[: len(images)],
        ),
        "folding": folding,
        "votes": votes,
        "adjustments": adjustments,
    }
    return quantized, report


def quantize_input(quantized, images):
    """uint8 images -> int8 DPU input, by the input layer's fix_point."""
    fix_point = quantized.fix_points[quantized.network.input.name]
    scaling = quantized.input_scaling
    return input_table(scaling["subtract"], scaling["divide"], fix_point)[images]


def predict(quantized, images, batch=64):
    """Integer logits of uint8 images: float32 (N, classes) of int8 values."""
    network = quantized.network
    logits = network.output.inputs[0] if network.output.op == "softmax" else network.output.name
    return np.concatenate(
        [
            engine.run_integer(quantized, quantize_input(quantized, images[i : i + batch]), [logits])[logits]
            for i in range(0, len(images), batch)
        ]
    )


def write_artifacts(quantized, report, model_path, eval_graph_path, report_path):
    """Write quantized_model.h5, quantize_eval_model.pb and quantization.json."""
    write_quantized(model_path, quantized)
    nodes = write_eval_graph(eval_graph_path, quantized, report["nodes"]["output"])
    write_json(report_path, {**report, "eval_graph": nodes})
