"""The `reference` quantizer: frozen GraphDef + calibration images -> QuantizedNetwork + report.

Steps: read the graph, fold, equalize, choose positions over calibration batches, search
better ones, refine roundings, diagnose. Every optional step is measured by the divergence
of the logits from the float network's on the calibration images. No TensorFlow is needed.
"""

import copy
import json

import numpy as np

from dpuflow.base.errors import UserError, about
from dpuflow.base.files import write_json
from dpuflow.base.numerics import input_table, scale_pixels
from dpuflow.network import QuantizedNetwork
from dpuflow.network.quantized_file import write_quantized
from dpuflow.quantize import alignment, calibration, engine, equalization, position_search, reconstruction
from dpuflow.quantize.calibration_images import calibration_record, refuse_test_images
from dpuflow.quantize.compat_vai_q import choose_positions
from dpuflow.quantize.diagnosis import diagnose
from dpuflow.quantize.distance import LogitDistance, agreement, decided
from dpuflow.quantize.eval_graph import write_eval_graph
from dpuflow.quantize.folding import fold
from dpuflow.quantize.memo import Memo
from dpuflow.quantize.settings import complete
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
    images = checked_images(calibration_images, network.input.shape)[: settings["calibration"]["images"]]
    if test_images is not None:
        refuse_test_images(images, test_images)
    calibration_labels = None if calibration_labels is None else np.asarray(calibration_labels)[: len(images)]
    calibration_indices = None if calibration_indices is None else calibration_indices[: len(images)]
    with engine.single_threaded_blas():
        with about(frozen_path):
            run = Run(network, images, settings, input_scaling)
        quantized = run.quantize()
        report = {
            "quantizer": "reference",
            "settings": settings,
            "input_scaling": input_scaling,
            "nodes": nodes,
            "calibration": calibration_record(images, calibration_indices, calibration_labels),
            "folding": run.folding,
            "steps": run.steps,
            "votes": run.votes,
            "adjustments": run.adjustments,
        }
        if settings["diagnosis"]:
            report["diagnosis"] = _diagnosis(quantized, images, calibration_labels, validation)
    return quantized, report


def checked_images(images, shape):
    """The calibration images as an array; UserError unless they are uint8 of the network's input shape."""
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
    """One quantization of a network as read from its graph, and what was measured on the way.

    Parameters
    ----------
    network : Network before folding; images : uint8 calibration images, as many as the settings want.
    settings : complete (`settings.complete`); input_scaling : {"subtract", "divide"}.
    memo : `memo.Memo` that runs on the same network and images share: steps that have the
        same settings up to there are then done once.

    Attributes
    ----------
    network : the folded network; folding : notes on it.
    steps : list of {"step", "divergence", "agreement", ...}: state after each step, over the
        calibration images; `kept` tells whether an optional step stayed.
    votes : layer name -> {position: batches}; adjustments : changes forced by the DPU.
    """

    def __init__(self, network, images, settings, input_scaling, memo=None):
        if np.min(images) == np.max(images):
            raise UserError(
                f"calibration images: every pixel of all {len(images)} is {np.max(images):g}, which tells "
                "nothing of the network's ranges; give images as the network will see them"
            )
        self.settings, self.input_scaling = settings, input_scaling
        self.memo = memo or Memo()
        self.steps, self.votes, self.adjustments = [], {}, []
        mode = settings["batch_norm_after_activation"]
        self.network, self.folding = self.memo(("fold", mode), lambda: fold(network, mode))
        self.logits = position_search.logits_name(self.network)
        self.x = self.memo(("input", len(images)), lambda: scale_pixels(images, input_scaling))
        self.reference, self.distance = self._once("reference", self.network, self._float_logits)

    def _once(self, what, source, compute, *options):
        """compute(), once for all runs: what becomes of a network, float or quantized, by these options.

        The key names the network by its id, which stays its own because the memo keeps it.
        """
        key = what, id(source), len(self.x), json.dumps(options)
        return self.memo(key, lambda: (compute(), source))[0]

    def _float_logits(self):
        logits = engine.run_float(self.network, self.x, [self.logits])[self.logits]
        return logits, LogitDistance(logits)

    def measure(self, quantized):
        """{"divergence", "agreement"} of the integer network against the float one."""
        return self._once("measure", quantized, lambda: self._measure(quantized))

    def _integer_logits(self, quantized):
        """Logits of the integer network in real units."""
        grid = calibration.to_grid(self.x, quantized.fix_points[quantized.network.input.name])
        logits = engine.run_integer(quantized, grid, [self.logits])[self.logits]
        return logits * np.float32(2.0 ** -quantized.fix_points[self.logits])

    def _measure(self, quantized):
        logits = self._integer_logits(quantized)
        short = float(f"{self.distance(logits):.6g}")
        return {"divergence": short, "agreement": float(f"{agreement(logits, self.reference):.6g}")}

    def quantize(self):
        """The QuantizedNetwork by these settings: positions, then every optional step that is on."""
        settings = self.settings
        if settings["compat"]:
            return self._positions("compat", self.network, self._vendor_positions)
        quantized = self._equalized()
        if settings["position_search"]["criterion"]:
            quantized = self._step(self._search, quantized, settings["position_search"], settings["method"])
            quantized = self._step(self._place_logits, quantized, settings["method"])
        if settings["bias_correction"]:
            quantized = self._step(self._correct_biases, quantized)
        if settings["fast_finetune"]:
            quantized = self._step(self._fast_finetune, quantized, settings["fast_finetune"])
        return quantized

    def _step(self, step, quantized, *options):
        """The network after `step(quantized, *options)`, which gives it and a record."""
        result, record = self._once(step.__name__, quantized, lambda: step(quantized, *options), *options)
        self.steps.append(record)
        return result

    def _positions(self, step, network, choose):
        """The network as `choose` places it, noted as the first step."""
        options = (
            self.settings["method"],
            self.settings["calibration"]["batch"],
            self.settings["equalization"],
        )
        found = self._once(step, network, lambda: choose(network), *options[: 3 if step == "compat" else 2])
        quantized, self.votes, self.adjustments = found
        self.steps.append({"step": "positions", **self.measure(quantized)})
        return quantized

    def _vendor_positions(self, network):
        """The vendor's frozen-graph quantizer, reproduced."""
        network, equal = copy.deepcopy(network), bool(self.settings["equalization"])
        positions, weights, biases, votes, adjustments = choose_positions(
            network, self.x, self.settings["method"], self.settings["calibration"]["batch"], equal
        )
        return QuantizedNetwork(network, positions, weights, biases, self.input_scaling), votes, adjustments

    def _own_positions(self, network):
        """Positions by vote, shared within groups, shifts in range; with the votes and adjustments."""
        method, batch = self.settings["method"], self.settings["calibration"]["batch"]
        weights, biases = calibration.quantize_parameters(network, method)
        positions, votes = calibration.vote(network, weights, biases, self.x, method, batch)
        adjustments = alignment.share_positions(network, positions)
        adjustments += alignment.place_silent(network, positions)
        adjustments += alignment.raise_relu6(network, positions)
        adjustments += alignment.fit_shifts(network, positions, weights, biases)
        return QuantizedNetwork(network, positions, weights, biases, self.input_scaling), votes, adjustments

    def _equalized(self):
        """Choose positions with and without equalization; keep whichever diverges less."""
        plain = self._positions("positions", self.network, self._own_positions)
        if not self.settings["equalization"]:
            return plain
        sweeps, before = self.settings["equalization"]["sweeps"], (self.votes, self.adjustments)
        network, pairs = self._once("equalize", self.network, lambda: self._equalize(sweeps), sweeps)
        try:
            other = self._positions("positions", network, self._own_positions)
        except UserError as error:  # it made a range that plain quantization does not have
            self.steps.append({**self.steps[-1], "step": "equalization", "kept": False, "why": str(error)})
            return plain
        measured, plainly = self.steps.pop(), self.steps[-1]
        kept = measured["divergence"] < plainly["divergence"]
        self.steps.append({**measured, "step": "equalization", "kept": kept, "pairs": pairs})
        if not kept:
            self.votes, self.adjustments = before
        return other if kept else plain

    def _equalize(self, sweeps):
        network = copy.deepcopy(self.network)
        return network, equalization.equalize(network, sweeps)

    def _search(self, quantized, options, method):
        images, network = self.x[: options["images"]], quantized.network
        candidate = position_search.Candidate(quantized, method)
        if options["criterion"] == "output_error":
            outputs = self._once(
                "outputs", network, lambda: position_search.float_outputs(network, images), len(images)
            )
            moves = position_search.search_by_output_error(candidate, images, outputs)
        else:
            distance = LogitDistance(self.reference[: len(images)])
            moves = position_search.LogitSearch(candidate, images, distance).run(options["sweeps"])
        moves += candidate.adjust()
        return self._better("position_search", quantized, candidate.quantized, {"moves": moves})

    def _place_logits(self, quantized, method):
        candidate = position_search.Candidate(quantized, method)
        moves = position_search.place_logits(candidate, self.x)
        measured = [
            (self._decided(q), -self.measure(q)["divergence"]) for q in (candidate.quantized, quantized)
        ]
        kept = measured[0] >= measured[1]
        record = {
            **self.measure(candidate.quantized),
            "decided": measured[0][0],
            "kept": kept,
            "moves": moves,
        }
        return (candidate.quantized if kept else quantized), {"step": "logits_position", **record}

    def _decided(self, quantized):
        """Share of images on which the float network's first class is first, and alone.

        What placing the logits is for: sure winners may saturate, which the divergence counts against
        it, so that more of the close ones are told apart. Where it tells apart no more of them, the
        divergence decides, as for any other step.
        """
        return float(f"{decided(self._integer_logits(quantized), self.reference):.6g}")

    def _correct_biases(self, quantized):
        candidate, targets = _with_own_parameters(quantized), self._preactivations(quantized)
        layers = reconstruction.correct_biases(candidate, self.x, targets)
        return self._better("bias_correction", quantized, candidate, {"layers": layers})

    def _fast_finetune(self, quantized, options):
        candidate, targets = _with_own_parameters(quantized), self._preactivations(quantized)
        layers = reconstruction.fast_finetune(candidate, self.x, options, targets)
        return self._better("fast_finetune", quantized, candidate, {"layers": layers})

    def _preactivations(self, quantized):
        network = quantized.network
        return self._once("preactivations", network, lambda: reconstruction.preactivations(network, self.x))

    def _better(self, step, quantized, candidate, record):
        """The candidate if it diverges no more than the network before, and the record of the step."""
        measured = self.measure(candidate)
        kept = measured["divergence"] <= self.measure(quantized)["divergence"]
        return (candidate if kept else quantized), {"step": step, **measured, "kept": kept, **record}


def _with_own_parameters(quantized):
    """A copy whose tables of weights and biases can be changed."""
    candidate = copy.copy(quantized)
    candidate.weights, candidate.biases = dict(quantized.weights), dict(quantized.biases)
    return candidate


def quantize_input(quantized, images):
    """uint8 images -> int8 DPU input, by the input layer's fix_point."""
    fix_point = quantized.fix_points[quantized.network.input.name]
    scaling = quantized.input_scaling
    return input_table(scaling["subtract"], scaling["divide"], fix_point)[images]


def predict(quantized, images, batch=64):
    """Integer logits of uint8 images: float32 (N, classes) of int8 values."""
    logits = position_search.logits_name(quantized.network)
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
