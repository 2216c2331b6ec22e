"""One network through everything that executes it: all must give the integers of the NumPy engine.

Quantized graph in TensorFlow, emulator on both forms of the graph (NumPy and C), oracle, machine code on the
instruction simulator for every size of the DPU.
"""

import ctypes
import logging
import re
import signal
import tempfile
import traceback
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.pixels import scale_pixels
from dpuflow.compiler.quantized_reading import read_quantized_graph
from dpuflow.device.targets import get_target
from dpuflow.dpuczdx8g.compile_report import compile_reference
from dpuflow.dpuczdx8g.isa.runner import IsaRunner
from dpuflow.dpuczdx8g.native import report as native_report
from dpuflow.dpuczdx8g.native.report import compile_native
from dpuflow.emulator import Emulator, c_kernels
from dpuflow.emulator.selfcheck import oracle_tensors
from dpuflow.network.check import check, check_network
from dpuflow.quantize import calibration, engine
from dpuflow.quantize.eval_graph import write_eval_graph
from dpuflow.quantize.reference import quantize
from dpuflow.xir import Graph, validate
from tests.network_fuzz.recipes import build, images, random_recipe

SIZES = ("B512", "B800", "B1024", "B1152", "B1600", "B2304", "B3136", "B4096")
LONGEST = 900
"""Seconds that one network may take: beyond, it counts as a hang."""


class DifferenceError(AssertionError):
    """Two that execute the same network do not agree."""


@dataclass
class Outcome:
    """What became of a network.

    Attributes
    ----------
    layers : how many it has; kinds : of these.
    passed : stages that agreed. refused : stage -> the message of what said no.
    failure : (stage, kind of error, message, traceback), or None.
    """

    layers: int = 0
    kinds: set = field(default_factory=set)
    passed: list = field(default_factory=list)
    refused: dict = field(default_factory=dict)
    failure: tuple | None = None

    def same_failure(self, other):
        """Whether both fail in one stage and in one way."""
        return bool(self.failure and other.failure) and self.failure[:2] == other.failure[:2]


def try_recipe(recipe, sizes=SIZES, compute=None):
    """Outcome of a recipe.

    compute : what runs the stages, for tests; None: `through_all`.
    """
    outcome = Outcome()
    stage = ["build"]
    try:
        with _no_longer_than(LONGEST), tempfile.TemporaryDirectory() as folder:
            (compute or through_all)(recipe, outcome, stage, Path(folder), sizes)
    except Exception as error:
        outcome.failure = (stage[0], _way(error), str(error)[:2000], traceback.format_exc(limit=-6))
    return outcome


def end_with_parent():
    """Let this process end when the one that started it does, however that ends."""
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of linux/prctl.h
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def attempt(seed, number):
    """(number, Outcome) of one network of a seed."""
    warnings.simplefilter("ignore", RuntimeWarning)  # exp of large numbers
    logging.getLogger("dpuflow").setLevel(logging.ERROR)  # which operations have no compiled kernel
    return number, try_recipe(random_recipe(seed, number))


def _way(error):
    """The kind of an error, and the function that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "dpuflow" in frame.filename] or frames
    return f"{type(error).__name__} in {own[-1].name}"


@contextmanager
def _no_longer_than(seconds):
    def late(*_):
        raise TimeoutError(f"not finished after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def through_all(recipe, outcome, stage, folder, sizes):
    """Every stage in turn; `stage[0]` says which."""
    network = build(recipe)
    outcome.layers, outcome.kinds = len(network.layers), {layer.op for layer in network.layers}
    check_network(network)
    pixels = images(network, recipe)
    stage[0] = "quantize"
    try:
        quantized, _ = quantize(network, pixels, recipe.settings(), recipe.input_scaling())
    except UserError as error:
        outcome.refused["quantize"] = str(error)
        return
    check(quantized)
    batch = _batch(quantized, pixels, recipe)
    floats = {name: values.astype(np.float32) for name, values in batch.items()}
    every = [layer.name for layer in quantized.network.layers]
    values = engine.run_integer(quantized, floats, every)
    outcome.passed.append("quantize")
    stage[0] = "tensorflow"
    try:
        _tensorflow(quantized, batch, values, folder)
        outcome.passed.append("tensorflow")
    except Exception as error:
        # after hundreds of sessions in one process oneDNN sometimes refuses a convolution that it can do
        if "could not create a primitive" not in str(error):
            raise
        outcome.refused["tensorflow"] = "oneDNN: could not create a primitive"
    compiled = _reference(quantized, recipe, outcome, stage, batch, values, folder)
    if compiled is None:
        return
    chosen = _chosen(recipe, sizes)
    for size in sorted(chosen) if recipe.wide else sizes:
        stage[0] = f"machine code {size}"
        target = get_target(f"DPUCZDX8G_ISA1_{size}")
        given = pixels if len(pixels) > 1 else next(iter(pixels.values()))
        try:
            with _verified(size in chosen):
                native = compile_native(quantized, target, _on_cpu(recipe), given)
        except UserError as error:
            outcome.refused[stage[0]] = str(error)
            continue
        found = IsaRunner(Graph.from_bytes(native.graph.to_bytes())).run(batch)
        _same_outputs(quantized, native.graph, found, values)
        outcome.passed.append(stage[0])


def _chosen(recipe, sizes):
    """The sizes for which the machine code is looked at layer by layer as well: that takes longest."""
    if not sizes:
        return set()
    return {sizes[recipe.seed % len(sizes)], sizes[(recipe.seed // 8) % len(sizes)]}


@contextmanager
def _verified(whole):
    """compile_native with its own verification, or without: its outputs are compared here in any case."""
    if whole:
        yield
        return
    with patch.object(native_report, "verify", lambda *_: {}):
        yield


def _on_cpu(recipe):
    return "allow" if recipe.on_cpu else "error"


def _batch(quantized, pixels, recipe):
    """int8 images for each input: the calibration's, noise, and all at the ends of int8."""
    found, rng = {}, np.random.default_rng([recipe.seed, 2**21])
    for layer in quantized.network.inputs:
        x = scale_pixels(pixels[layer.name], quantized.input_scaling)
        grid = calibration.to_grid(x, quantized.fix_points[layer.name]).astype(np.int8)
        noise = rng.integers(-128, 128, (2, *layer.shape)).astype(np.int8)
        ends = rng.choice(np.array([-128, 127], np.int8), (2, *layer.shape))
        found[layer.name] = np.concatenate([grid, noise, ends])
    return found


def _reals(quantized, layer, values):
    """Output of a layer in real numbers."""
    return values[layer.name] * np.float32(2.0 ** -quantized.fix_points.get(layer.name, 0))


def _tensorflow(quantized, batch, values, folder):
    """The evaluation graph, of which integers must be equal; what is real is equal but for the last bits."""
    from dpuflow.base.tensorflow_env import tensorflow

    tf = tensorflow(2)
    network = quantized.network
    names = write_eval_graph(folder / "q.pb", quantized)
    definition = tf.compat.v1.GraphDef()
    definition.ParseFromString((folder / "q.pb").read_bytes())
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(definition, name="")
    nodes = names.get("outputs") or {name: names["output"] for name in network.outputs}
    inputs = names.get("inputs") or [names["input"]]
    given = {
        f"{node}:0": batch[layer.name] * np.float32(2.0 ** -quantized.fix_points[layer.name])
        for node, layer in zip(inputs, network.inputs, strict=True)
    }
    with tf.compat.v1.Session(graph=graph) as session:
        found = session.run({name: f"{node}:0" for name, node in nodes.items()}, given)
    behind_floats = _behind_floats(network)
    for name, layer in network.outputs.items():
        wanted, got = _reals(quantized, layer, values), found[name]
        if got.shape != wanted.shape:
            raise DifferenceError(f"output {name!r}: {got.shape} in TensorFlow, {wanted.shape} in the engine")
        if layer.name not in behind_floats:
            _equal(name, got, wanted)
        elif not behind_floats[layer.name]:
            np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4 * (1 + np.abs(wanted).max()))


def _behind_floats(network):
    """Layers of the CPU and what is behind them: name -> whether something on the way takes steps."""
    found = {}
    for layer in network.layers:
        before = [found[name] for name in layer.inputs if name in found]
        if before or not layer.operator.quantized:
            found[layer.name] = any(before) or layer.op in ("to_grid", "argmax", "exp", "float_divide")
    return found


def _equal(name, got, wanted):
    differ = np.asarray(got) != np.asarray(wanted).reshape(np.shape(got))
    differ &= ~(np.isnan(got) & np.isnan(np.asarray(wanted).reshape(np.shape(got))))
    if differ.any():
        place = tuple(int(n) for n in np.argwhere(differ)[0])
        raise DifferenceError(
            f"{name!r}: {int(differ.sum())} of {differ.size} values differ, first at {place}:"
            f" {np.asarray(got)[place]}, {np.asarray(wanted).reshape(np.shape(got))[place]} expected"
        )


def _reference(quantized, recipe, outcome, stage, batch, values, folder):
    """Both forms of the graph in the emulator and by the oracle."""
    stage[0] = "reference compiler"
    try:
        compiled = compile_reference(quantized, get_target("kv260"), _on_cpu(recipe))
    except UserError as error:
        outcome.refused[stage[0]] = str(error)
        if "compat" in recipe.settings():  # the vendor's tool chooses what its compiler refuses
            return None
        compiled = compile_reference(quantized, get_target("kv260"), "allow")
    forms = {"compiled": compiled.graph, "uncompiled": compiled.quantized_graph}
    for form, graph in forms.items():
        stage[0] = f"file, {form}"
        stored = Graph.from_bytes(graph.to_bytes())
        problems = validate.validate(stored, strict=True)
        if problems:
            raise DifferenceError(f"the graph's own check finds {problems}")
        for native in (False, True) if c_kernels.library() is not None else (False,):
            stage[0] = f"emulator, {form}, {'C' if native else 'NumPy'}"
            with Emulator(stored, threads=1, use_native=native) as emulator:
                tensors = emulator.run(batch, dump=True)
                for layer in quantized.network.layers:
                    if layer.name in tensors and layer.name in quantized.fix_points and form == "compiled":
                        _equal(layer.name, tensors[layer.name], values[layer.name])
                # the uncompiled form's floats are float64 up to the first layer that makes float32 of them
                _same_outputs(quantized, stored, emulator.run(batch), values, form == "compiled")
            outcome.passed.append(stage[0])
    if all(
        layer.operator.quantized or _is_last_softmax(quantized, layer) for layer in quantized.network.layers
    ):
        if len(quantized.network.inputs) == 1:
            stage[0] = "oracle"
            expected = oracle_tensors(compiled.graph, next(iter(batch.values())))
            for layer in quantized.network.layers:
                if layer.name in expected:
                    _equal(layer.name, values[layer.name], expected[layer.name])
            outcome.passed.append(stage[0])
        stage[0] = "uncompiled file read again"
        compiled.quantized_graph.save(folder / "q.xmodel")
        _read_again(folder / "q.xmodel", quantized, batch, values)
        outcome.passed.append(stage[0])
    return compiled


def _is_last_softmax(quantized, layer):
    return layer.op == "softmax" and not quantized.network.consumers(layer.name)


def _read_again(path, quantized, batch, values):
    """What the reader of quantized xmodels makes of our own file computes the same."""
    found = read_quantized_graph(path, "again", None)
    again = engine.run_integer(found, {name: array.astype(np.float32) for name, array in batch.items()})
    for name, (first, second) in enumerate(
        zip(quantized.network.outputs.values(), found.network.outputs.values(), strict=True)
    ):
        _equal(f"output {name}", _reals(found, second, again), _reals(quantized, first, values))


def _same_outputs(quantized, graph, found, values, exact=True):
    """The graph's outputs, in the network's order. exact : whether real numbers must have equal bits."""
    behind = {} if exact else _behind_floats(quantized.network)
    arrays = list(found.values()) if isinstance(found, dict) else [found]
    layers = list(quantized.network.outputs.values())
    if isinstance(found, dict):
        order = list(graph.attrs["return_ops"])
        arrays = [found[name] for name in order]
    unlike = list({id(layer): layer for layer in layers}.values())
    for got, layer in zip(arrays, unlike, strict=True):
        if layer.name not in behind:
            _equal(layer.name, got, _reals(quantized, layer, values))
        elif not behind[layer.name]:
            wanted = _reals(quantized, layer, values)
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6 * (1 + np.abs(wanted).max()))


def kind_of_refusal(message):
    """A message without names and numbers, to count what is refused."""
    return re.sub(r"'[^']*'|[-\d.x, ()]*\d[-\d.x, ()]*", "#", message.split("\n")[-1])[:120]
