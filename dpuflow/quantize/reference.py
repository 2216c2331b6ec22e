"""The `reference` quantizer: frozen GraphDef + calibration images -> QuantizedNetwork + report.

Steps: read the graph, fold, equalize, choose positions over calibration batches, search
better ones, refine roundings, diagnose. Every optional step is measured by the divergence
of the logits from the float network's on the calibration images. No TensorFlow is needed.
"""

import copy

import numpy as np

from dpuflow.errors import UserError, about
from dpuflow.files import write_json
from dpuflow.network import QuantizedNetwork
from dpuflow.numerics import input_table, scale_pixels
from dpuflow.quantize import alignment, calibration, engine, equalization, reconstruction, search
from dpuflow.quantize.calibration_images import calibration_record, refuse_test_images
from dpuflow.quantize.compat_vai_q import choose_positions
from dpuflow.quantize.diagnosis import diagnose
from dpuflow.quantize.distance import LogitDistance, agreement
from dpuflow.quantize.eval_graph import write_eval_graph
from dpuflow.quantize.folding import fold
from dpuflow.quantize.settings import complete
from dpuflow.quantized_file import write_quantized
from dpuflow.tfgraph.graph_reader import read_network_and_nodes

DIAGNOSIS_IMAGES = 500


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
    validation=None,
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
    validation : (uint8 images, labels) from the training side, for the diagnosis; None: the
        calibration images.

    Returns
    -------
    (QuantizedNetwork, report): report is the content of quantization.json.
    """
    settings = complete(settings)
    input_scaling = {"subtract": 0, "divide": 255, **(input_scaling or {})}
    network, nodes = read_network_and_nodes(frozen_path, input_name, output_name, name=name)
    images = _checked(calibration_images, network.input.shape)[: settings["calibration"]["images"]]
    if test_images is not None:
        refuse_test_images(images, test_images)
    calibration_labels = None if calibration_labels is None else np.asarray(calibration_labels)[: len(images)]
    calibration_indices = None if calibration_indices is None else calibration_indices[: len(images)]
    with engine.single_threaded_blas():
        with about(frozen_path):
            folded, folding = fold(network, settings["batch_norm_after_activation"])
        run = Run(folded, scale_pixels(images, input_scaling), settings, input_scaling)
        quantized = run.compat() if settings["compat"] else run.choose()
        report = {
            "quantizer": "reference",
            "settings": settings,
            "input_scaling": input_scaling,
            "nodes": nodes,
            "calibration": calibration_record(images, calibration_indices, calibration_labels),
            "folding": folding,
            "steps": run.steps,
            "votes": run.votes,
            "adjustments": run.adjustments,
        }
        if settings["diagnosis"]:
            report["diagnosis"] = _diagnosis(quantized, images, calibration_labels, validation)
    return quantized, report


def _checked(images, shape):
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.shape[1:] != shape or not len(images):
        raise UserError(
            f"calibration images: expected uint8 of shape (N, {', '.join(map(str, shape))}), "
            f"got {images.dtype} {images.shape}"
        )
    return images


def _diagnosis(quantized, images, labels, validation):
    source = "calibration"
    if validation is not None and len(validation[0]):
        images, labels, source = validation[0], np.asarray(validation[1]), "validation"
    step = max(1, len(images) // DIAGNOSIS_IMAGES)  # evenly over the split
    x = scale_pixels(images[::step][:DIAGNOSIS_IMAGES], quantized.input_scaling)
    labels = None if labels is None else labels[::step][:DIAGNOSIS_IMAGES]
    return {"source": source, **diagnose(quantized, x, labels)}


class Run:
    """One quantization: the folded network, calibration input x, and what was measured on the way.

    Attributes
    ----------
    steps : list of {"step", "divergence", "agreement", ...}: state after each step, over the
        calibration images; `kept` tells whether an optional step stayed.
    votes : layer name -> {position: batches}; adjustments : changes forced by the DPU.
    """

    def __init__(self, network, x, settings, input_scaling):
        self.network, self.x = network, x
        self.settings, self.input_scaling = settings, input_scaling
        self.steps, self.votes, self.adjustments = [], {}, []
        self.logits = search.logits_name(network)
        self.reference = engine.run_float(network, x, [self.logits])[self.logits]
        self.distance = LogitDistance(self.reference)

    def measure(self, quantized):
        """{"divergence", "agreement"} of the integer network against the float one."""
        grid = calibration.to_grid(self.x, quantized.fix_points[quantized.network.input.name])
        logits = engine.run_integer(quantized, grid, [self.logits])[self.logits]
        logits = logits * np.float32(2.0 ** -quantized.fix_points[self.logits])
        short = float(f"{self.distance(logits):.6g}")
        return {"divergence": short, "agreement": float(f"{agreement(logits, self.reference):.6g}")}

    def compat(self):
        """The vendor's frozen-graph quantizer, reproduced."""
        batch = self.settings["calibration"]["batch"]
        equal = bool(self.settings["equalization"])
        positions, weights, biases, self.votes, self.adjustments = choose_positions(
            self.network, self.x, self.settings["method"], batch, equal
        )
        quantized = QuantizedNetwork(self.network, positions, weights, biases, self.input_scaling)
        self.steps.append({"step": "positions", **self.measure(quantized)})
        return quantized

    def choose(self):
        """Positions, then every optional step that is on."""
        quantized = self._equalized()
        if self.settings["position_search"]["criterion"]:
            quantized = self._place_logits(self._search(quantized))
        if self.settings["bias_correction"]:
            quantized = self._refine(
                quantized, "bias_correction", lambda q: reconstruction.correct_biases(q, self.x)
            )
        if self.settings["fast_finetune"]:
            options = self.settings["fast_finetune"]
            quantized = self._refine(
                quantized, "fast_finetune", lambda q: reconstruction.fast_finetune(q, self.x, options)
            )
        return quantized

    def _positions(self, network):
        """Positions by vote, shared within groups, shifts in range; with the votes and adjustments."""
        method, batch = self.settings["method"], self.settings["calibration"]["batch"]
        weights, biases = calibration.quantize_parameters(network, method)
        positions, votes = calibration.vote(network, weights, biases, self.x, method, batch)
        adjustments = alignment.share_positions(network, positions)
        adjustments += alignment.repair_shifts(network, positions, weights, biases)
        return QuantizedNetwork(network, positions, weights, biases, self.input_scaling), votes, adjustments

    def _equalized(self):
        """Choose positions with and without equalization; keep whichever diverges less."""
        plain = self._positions(self.network)
        self.steps.append({"step": "positions", **self.measure(plain[0])})
        chosen = plain
        if self.settings["equalization"]:
            network = copy.deepcopy(self.network)
            pairs = equalization.equalize(network, self.settings["equalization"]["sweeps"])
            other = self._positions(network)
            measured = self.measure(other[0])
            kept = measured["divergence"] < self.steps[-1]["divergence"]
            self.steps.append({"step": "equalization", **measured, "kept": kept, "pairs": pairs})
            chosen = other if kept else plain
        quantized, self.votes, self.adjustments = chosen
        return quantized

    def _search(self, quantized):
        options = self.settings["position_search"]
        count = options["images"]
        candidate = search.Candidate(quantized, self.settings["method"])
        if options["criterion"] == "output_error":
            moves = search.search_by_output_error(candidate, self.x[:count])
        else:
            distance = LogitDistance(self.reference[:count])
            moves = search.LogitSearch(candidate, self.x[:count], distance).run(options["sweeps"])
        measured = self.measure(candidate.quantized)
        kept = measured["divergence"] <= self._current()
        self.steps.append({"step": "position_search", **measured, "kept": kept, "moves": moves})
        return candidate.quantized if kept else quantized

    def _place_logits(self, quantized):
        candidate = search.Candidate(quantized, self.settings["method"])
        moves = search.place_logits(candidate, self.x)
        self.steps.append({"step": "logits_position", **self.measure(candidate.quantized), "moves": moves})
        return candidate.quantized

    def _refine(self, quantized, step, change):
        """Apply a step that changes parameters to a copy; keep it if it diverges less."""
        candidate = copy.copy(quantized)
        candidate.weights, candidate.biases = dict(quantized.weights), dict(quantized.biases)
        record = change(candidate)
        measured = self.measure(candidate)
        kept = measured["divergence"] <= self._current()
        self.steps.append({"step": step, **measured, "kept": kept, "layers": record})
        return candidate if kept else quantized

    def _current(self):
        """Divergence of the state that was kept last."""
        return next(step["divergence"] for step in reversed(self.steps) if step.get("kept", True))


def quantize_input(quantized, images):
    """uint8 images -> int8 DPU input, by the input layer's fix_point."""
    fix_point = quantized.fix_points[quantized.network.input.name]
    scaling = quantized.input_scaling
    return input_table(scaling["subtract"], scaling["divide"], fix_point)[images]


def predict(quantized, images, batch=64):
    """Integer logits of uint8 images: float32 (N, classes) of int8 values."""
    logits = search.logits_name(quantized.network)
    with engine.single_threaded_blas():
        return np.concatenate(
            [
                engine.run_integer(quantized, quantize_input(quantized, images[i : i + batch]), [logits])[
                    logits
                ]
                for i in range(0, len(images), batch)
            ]
        )


def write_artifacts(quantized, report, model_path, eval_graph_path, report_path):
    """Write quantized_model.h5, quantize_eval_model.pb and quantization.json."""
    write_quantized(model_path, quantized)
    nodes = write_eval_graph(eval_graph_path, quantized, report["nodes"]["output"])
    write_json(report_path, {**report, "eval_graph": nodes})
