"""One quantization from the folded network to the outcome, step by step.

Equalize, choose fix_points over calibration batches, search better ones, refine roundings. An optional step
is measured by the divergence of the network's ends from the float network's on the calibration images, and
stays if it is no worse.
"""

import copy
import gc
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.numerics import short
from dpuflow.base.pixels import Scaling, per_channel
from dpuflow.network import Network, QuantizedNetwork
from dpuflow.quantize import (
    alignment,
    blocks,
    calibration,
    equalization,
    output_search,
    position_search,
    reconstruction,
    replacements,
    requantising,
)
from dpuflow.quantize.answers import effort, float_values, integer_values
from dpuflow.quantize.calibration import Votes
from dpuflow.quantize.calibration_images import batches
from dpuflow.quantize.compat_vai_q import choose_fix_points
from dpuflow.quantize.distance import Ends, EndsDistance, decided, ends_agreement, is_logits
from dpuflow.quantize.fix_points import Change
from dpuflow.quantize.folding import fold
from dpuflow.quantize.gate_positions import hold_gates
from dpuflow.quantize.input_grid import one_grid
from dpuflow.quantize.memo import Memo, nothing_kept
from dpuflow.quantize.settings import Settings

VOTE_VALUES = 1 << 21
"""Values of a tensor that tell a batch's choice: enough by far, and all of them where pictures are small."""
VOTE_EFFORT, FEWEST_BATCHES = 1 << 40, 3
"""What the network may cost on the batches that vote (`answers.effort`), and how many vote in any case."""
END_VALUES = 1 << 25
"""Values of the network's ends that steps are measured by: so many pictures, evenly, where ends are maps."""

Result = TypeVar("Result")
Kind = TypeVar("Kind", Network, QuantizedNetwork)
Key = tuple[Any, ...]
"""What the result of a step depends on."""
Placed = tuple[QuantizedNetwork, Votes, list[Change]]
"""(network, votes, adjustments)."""
Candidate = tuple[QuantizedNetwork, dict[str, Any]]
"""Another network, and what its step's record says of it."""


@dataclass(frozen=True)
class Made(Generic[Kind]):
    """A network on the way, and what it was made by: among runs of one memo equal keys mean equal networks.

    Attributes
    ----------
    network : Network or QuantizedNetwork.
    key : the step with its options and the key of what it started from.
    """

    network: Kind
    key: Key


@dataclass(frozen=True)
class Outcome:
    """What a quantization has come to so far.

    Attributes
    ----------
    made : the quantized network; floats : the folded, perhaps equalized network that it was made from.
    votes : layer name -> {fix_point: batches}; adjustments : changes forced by the DPU.
    steps : list of {"step", "divergence", "agreement", ...}: state after each step, over the
        calibration images; `kept` tells whether an optional step stayed.
    """

    made: Made[QuantizedNetwork]
    floats: Made[Network]
    votes: Votes
    adjustments: list[Change]
    steps: list[dict[str, Any]]

    @property
    def quantized(self) -> QuantizedNetwork:
        """The QuantizedNetwork."""
        return self.made.network


Judge = Callable[[Made[QuantizedNetwork], Made[QuantizedNetwork]], dict[str, Any]]
"""Function(before, after) -> figures for the record, `kept` among them."""


class Quantization:
    """The quantization of a network as read from its graph, by one set of settings.

    Parameters
    ----------
    network : Network before folding; images : uint8 calibration images, as many as the settings want.
    settings : complete (`settings.complete`); input_scaling : see `base.pixels`.
    memo : `memo.Memo` that quantizations of the same network and images share: steps that have the
        same settings up to there are then done once.

    Attributes
    ----------
    folded : Made of the folded network, after `run` of the one that fix_points were chosen on;
        folding : notes on the folding.
    input_scaling : what the folded network sees of pixels: that given, perhaps with a gain (`input_grid`).
    """

    def __init__(
        self,
        network: Network,
        images: blocks.Images,
        settings: Settings,
        input_scaling: Scaling,
        memo: Memo | None = None,
    ) -> None:
        given = images if isinstance(images, Mapping) else {"": images}
        for name, pixels in given.items():
            ends = {float(end(part)) for part in batches(pixels) for end in (np.min, np.max)}
            if len(ends) == 1:
                of = f" of {name}" if name else ""
                raise UserError(
                    f"calibration images{of}: every pixel of all {len(pixels)} is {ends.pop():g}, which "
                    "tells nothing of the network's ranges; give images as the network will see them"
                )
        self.settings, self.memo = settings, memo or Memo()
        # alone it comes to each network once, and lets go of those that are not the outcome
        self._shared = memo or nothing_kept
        as_vendor = bool(settings["compat"]) and per_channel(input_scaling)
        fold_key = "fold", settings["batch_norm_after_activation"], as_vendor
        folded, self.input_scaling, self.folding = self._shared(
            fold_key, lambda: one_grid(*fold(network, fold_key[1]), input_scaling, change=not as_vendor)
        )
        self.folded = Made(folded, fold_key)
        self.ends = [layer.name for layer in folded.last_quantized]
        self.images = blocks.count(images)
        self.x = blocks.Pictures(images, self.input_scaling)
        size = blocks.values_of(*folded.last_quantized)
        self.measured = self.x.some(max(1, END_VALUES // size))
        self.reference, self.distance = self._once("reference", self.folded, self._float_ends)

    def _key(self, what: str, source: Made, *options: Any) -> Key:
        """Says all that the result of a step on `source` (a Made) depends on."""
        return what, source.key, self.images, json.dumps(options)

    def _once(self, what: str, source: Made, compute: Callable[[], Result], *options: Any) -> Result:
        """compute(), once for all quantizations: what becomes of `source` by these options."""
        return self._shared(self._key(what, source, *options), compute)

    def _float_ends(self) -> tuple[Ends, EndsDistance]:
        ends = float_values(self.folded.network, self.measured, self.ends)
        return ends, EndsDistance(ends)

    def replacements(self) -> dict[str, Any]:
        """What it costs, in floats, that the DPU has something else for some layers."""
        return replacements.cost(self.folded.network, self.folding, self.measured, self.ends, self.reference)

    def measure(self, made: Made[QuantizedNetwork]) -> dict[str, Any]:
        """{"divergence", "agreement"} of the integer network against the float one."""
        return self._measured(made)[0]

    def _measured(self, made: Made[QuantizedNetwork]) -> tuple[dict[str, Any], float | None]:
        """(what `measure` gives, share of images whose first class is the float network's, and alone)."""
        return self.memo(self._key("measure", made), lambda: self._measure(made.network))

    def _measure(self, quantized: QuantizedNetwork) -> tuple[dict[str, Any], float | None]:
        values = integer_values(quantized, self.measured, self.ends)
        ends = position_search.real_ends(quantized, values)
        found = ends_agreement(ends, self.reference)
        record: dict[str, Any] = {
            "divergence": short(self.distance(ends)),
            "agreement": short(float(np.mean(list(found.values())))),
        }
        if len(found) > 1:
            record["agreement_of_ends"] = {name: short(share) for name, share in found.items()}
        (name, *others) = self.ends
        if others or not is_logits(self.reference[name]):
            return record, 0.0
        return record, short(decided(ends[name], self.reference[name]))

    def run(self) -> Outcome:
        """The Outcome of these settings: fix_points, then every optional step that is on."""
        settings = self.settings
        if settings["compat"]:
            return self._placed("compat", self.folded, self._vendor_fix_points, settings["equalization"])
        outcome = self._requantised(self._equalized())
        self.folded = outcome.floats
        gc.collect()  # the weights of what was not kept, which the folding's steps refer to in a circle
        if settings["position_search"]["criterion"]:
            outcome = self._step(
                "position_search", self._search, outcome, settings["position_search"], settings["method"]
            )
            outcome = self._step(
                "logits_position", self._place_logits, outcome, settings["method"], judge=self._decides_more
            )
        if settings["bias_correction"]:
            outcome = self._step("bias_correction", self._correct_biases, outcome)
        if settings["fast_finetune"]:
            outcome = self._step("fast_finetune", self._fast_finetune, outcome, settings["fast_finetune"])
        return outcome

    def _step(
        self,
        name: str,
        work: Callable[..., Candidate],
        outcome: Outcome,
        *options: Any,
        judge: Judge | None = None,
    ) -> Outcome:
        """The outcome after an optional step, which stays if `judge` finds it no worse.

        work(outcome, *options) : gives another QuantizedNetwork and what the record says of it.
        judge(before, after) : of two Mades gives the figures for the record, `kept` among them;
            None: no more divergence than before.
        """
        key = self._key(name, outcome.made, *options)

        def compute() -> tuple[Made[QuantizedNetwork], dict[str, Any]]:
            candidate, found = work(outcome, *options)
            made = Made(candidate, ("made by", *key))
            figures = (judge or self._diverges_no_more)(outcome.made, made)
            return (made if figures["kept"] else outcome.made), {"step": name, **figures, **found}

        made, record = self._shared(key, compute)
        return replace(outcome, made=made, steps=[*outcome.steps, record])

    def _diverges_no_more(
        self, before: Made[QuantizedNetwork], after: Made[QuantizedNetwork]
    ) -> dict[str, Any]:
        measured = self.measure(after)
        return {**measured, "kept": measured["divergence"] <= self.measure(before)["divergence"]}

    def _decides_more(self, before: Made[QuantizedNetwork], after: Made[QuantizedNetwork]) -> dict[str, Any]:
        """What placing the logits is for: the share of images whose first class is first, and alone.

        Sure winners may saturate, which the divergence counts against it, so that more of the close ones
        are told apart. Where it tells apart no more of them, the divergence decides, as for any other step.
        """
        ranks = [(self._measured(m)[1], -self.measure(m)["divergence"]) for m in (after, before)]
        return {**self.measure(after), "decided": ranks[0][0], "kept": ranks[0] >= ranks[1]}

    def _placed(
        self, step: str, floats: Made[Network], choose: Callable[[Network], Placed], *options: Any
    ) -> Outcome:
        """The outcome of the first step: the network as `choose` places it."""
        options = self.settings["method"], self.settings["calibration"]["batch"], *options
        quantized, votes, adjustments = self._once(step, floats, lambda: choose(floats.network), *options)
        made = Made(quantized, ("made by", *self._key(step, floats, *options)))
        return Outcome(made, floats, votes, adjustments, [{"step": "positions", **self.measure(made)}])

    def _vendor_fix_points(self, network: Network) -> Placed:
        """The vendor's frozen-graph quantizer, reproduced."""
        network, equal = copy.deepcopy(network), bool(self.settings["equalization"])
        fix_points, weights, biases, votes, adjustments = choose_fix_points(
            network, self.x, self.settings["method"], self.settings["calibration"]["batch"], equal
        )
        return QuantizedNetwork(network, fix_points, weights, biases, self.input_scaling), votes, adjustments

    def _own_fix_points(self, network: Network) -> Placed:
        """FixPoints by vote, shared within groups, shifts in range; with the votes and adjustments."""
        method, batch = self.settings["method"], self.settings["calibration"]["batch"]
        weights, biases = calibration.quantize_parameters(network, method)
        # the input by the same method: half of the values of (pixel - 127) / 128 are lost where 1.0 must fit
        fix_points, votes = calibration.vote(
            network, weights, biases, self._voters(network, batch), method, batch, method, VOTE_VALUES
        )
        adjustments = alignment.share_fix_points(network, fix_points)
        adjustments += alignment.place_silent(network, fix_points)
        adjustments += alignment.raise_relu6(network, fix_points)
        adjustments += hold_gates(network, alignment.fix_point_groups(network), fix_points)
        adjustments += alignment.fit_shifts(network, fix_points, weights, biases)
        return QuantizedNetwork(network, fix_points, weights, biases, self.input_scaling), votes, adjustments

    def _voters(self, network: Network, batch: int) -> blocks.Pictures:
        """The pictures of the batches that vote: of a large network as many as it can afford, evenly."""
        batches = -(-self.images // batch)
        most = max(FEWEST_BATCHES, VOTE_EFFORT // (batch * effort(network)))
        if batches <= most:
            return self.x
        starts = batch * blocks.evenly(batches, most)
        numbers = np.concatenate([np.arange(s, min(s + batch, self.images)) for s in starts])
        return blocks.Pictures(blocks.chosen(self.x.images, numbers), self.input_scaling)

    def _equalized(self) -> Outcome:
        """Choose fix_points with and without equalization; keep whichever diverges less."""
        plain = self._placed("positions", self.folded, self._own_fix_points)
        if not self.settings["equalization"]:
            return plain
        sweeps = self.settings["equalization"]["sweeps"]
        network, pairs = self._once("equalize", self.folded, lambda: self._equalize(sweeps), sweeps)
        floats = Made(network, self._key("equalize", self.folded, sweeps))
        before = plain.steps[0]
        try:
            other = self._placed("positions", floats, self._own_fix_points)
        except UserError as error:  # it made a range that plain quantization does not have
            refused = {**before, "step": "equalization", "kept": False, "why": str(error)}
            return replace(plain, steps=[before, refused])
        after = other.steps[0]
        kept = after["divergence"] < before["divergence"]
        record = {**after, "step": "equalization", "kept": kept, "pairs": pairs}
        return replace(other if kept else plain, steps=[before, record])

    def _requantised(self, outcome: Outcome) -> Outcome:
        """Choose fix_points with concatenations' inputs on grids of their own, too; keep what loses less."""
        alone = {name: calibration.most_frequent(votes) for name, votes in outcome.votes.items()}
        floats, shared = outcome.floats, outcome.quantized.fix_points
        pairs = requantising.worthwhile(floats.network, alone, shared)
        if not pairs:
            return outcome
        network = self._once("requantise", floats, lambda: requantising.requantised(floats.network, pairs))
        other = self._placed(
            "positions", Made(network, self._key("requantise", floats)), self._own_fix_points
        )
        before, after = self.measure(outcome.made), other.steps[0]
        kept = after["divergence"] <= requantising.WORTH * before["divergence"]
        record = {**after, "step": "requantised_concats", "kept": kept}
        record["why"] = ", ".join(f"{name} in front of {concat}" for name, concat in pairs)
        return replace(other if kept else outcome, steps=[*outcome.steps, record])

    def _equalize(self, sweeps: int) -> tuple[Network, list[dict[str, Any]]]:
        network = copy.deepcopy(self.folded.network)
        names = [layer.name for layer in equalization.capped(network)]
        peaks = reconstruction.channel_peaks(network, self.x, names) if names else {}
        return network, equalization.equalize(network, sweeps, peaks)

    def _search(self, outcome: Outcome, options: Settings, method: str) -> Candidate:
        candidate, network = position_search.Candidate(outcome.quantized, method), outcome.quantized.network
        images = self.x.first(options["images"])
        images = images.some(output_search.affordable_pictures(network, len(images)))
        if options["criterion"] == "output_error":
            moves = output_search.search_by_output_error(candidate, images)
        else:
            distance = EndsDistance(float_values(outcome.floats.network, images, self.ends))
            moves = position_search.LogitSearch(candidate, images, distance).run(options["sweeps"])
        moves += candidate.adjust()
        return candidate.quantized, {"moves": moves}

    def _place_logits(self, outcome: Outcome, method: str) -> Candidate:
        candidate = position_search.Candidate(outcome.quantized, method)
        moves = position_search.place_logits(candidate, self.x)
        return candidate.quantized, {"moves": moves}

    def _correct_biases(self, outcome: Outcome) -> Candidate:
        candidate, floats = _with_own_parameters(outcome.quantized), outcome.floats
        means = self._once("means", floats, lambda: reconstruction.channel_means(floats.network, self.x))
        return candidate, {"layers": reconstruction.correct_biases(candidate, self.x, means)}

    def _fast_finetune(self, outcome: Outcome, options: Settings) -> Candidate:
        candidate, floats, rows = _with_own_parameters(outcome.quantized), outcome.floats, options["rows"]
        targets = self._once(
            "samples", floats, lambda: reconstruction.sampled(floats.network, self.x, rows), rows
        )
        return candidate, {"layers": reconstruction.fast_finetune(candidate, self.x, options, targets)}


def _with_own_parameters(quantized: QuantizedNetwork) -> QuantizedNetwork:
    """A copy whose tables of weights and biases can be changed."""
    candidate = copy.copy(quantized)
    candidate.weights, candidate.biases = dict(quantized.weights), dict(quantized.biases)
    return candidate
