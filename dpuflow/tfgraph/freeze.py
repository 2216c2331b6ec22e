"""Checkpoint -> `frozen_graph.pb`: variables become constants, training nodes go."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dpuflow.base.errors import UserError
from dpuflow.base.npy import Sliced
from dpuflow.base.numerics import images_at_a_time
from dpuflow.base.outputs import named_ends
from dpuflow.base.pixels import Scaling, scale_pixels
from dpuflow.base.protobuf_seal import require_seal
from dpuflow.base.tensorflow_env import tensorflow
from dpuflow.keras_models.keras_file import inference_model
from dpuflow.keras_models.outputs import named_outputs
from dpuflow.keras_models.prediction import predictor
from dpuflow.keras_models.stored_weights import values_of
from dpuflow.tfgraph import large_graph
from dpuflow.tfgraph.checkpoint import CHECKPOINT
from dpuflow.tfgraph.freeze_proof import Compared
from dpuflow.tfgraph.graph_def import parse_graph_def, write_graph_def
from dpuflow.tfgraph.variables import Variables

BATCH = 256
BATCH_VALUES = 1 << 24
"""Values of a graph's largest tensor for the images of one batch: 64 MiB as float32, and a few are alive."""


def freeze(
    checkpoint_folder: Path | str, nodes: Mapping[str, Any], frozen_path: Path | str
) -> dict[str, Any]:
    """Restore the MetaGraph's variables, fold them into constants and write the GraphDef.

    What TensorFlow 1.15 does not know is taken out: attributes at their default value
    (1.15 refuses a graph that only mentions `exponential_avg_factor`), internal
    attributes and debug information (docs/reference/tutorial.md, "Compatibility").

    Parameters
    ----------
    checkpoint_folder : folder with tfchkpt.ckpt.*.
    nodes : content of nodes.json.
    frozen_path : where the frozen graph goes.

    Returns
    -------
    dict : variables_frozen (count), variables (names), nodes_before, nodes_after,
        nodes_removed ({op: count}).
    """
    tf = tensorflow()
    prefix = str(Path(checkpoint_folder) / CHECKPOINT)
    outputs = _output_nodes(nodes)
    with Variables(prefix) as variables, tf.Graph().as_default() as graph:
        if not Path(f"{prefix}.meta").is_file():
            raise UserError(f"{prefix}: cannot be restored (there is no {prefix}.meta)")
        tf.compat.v1.train.import_meta_graph(f"{prefix}.meta", clear_devices=True)
        before = graph.as_graph_def()
        for output in sorted(set(outputs) - {node.name for node in before.node}):
            raise UserError(f"{prefix}.meta: has no node {output!r}, which nodes.json names as the output")
        frozen = _constants(variables, before, outputs)
        frozen = tf.compat.v1.graph_util.remove_training_nodes(frozen, protected_nodes=outputs)
        _strip_for_old_releases(frozen)
        frozen.ClearField("library")
        # our own writer sorts attribute maps, so equal graphs have equal bytes
        ours = parse_graph_def(frozen.SerializeToString(), frozen_path)
        write_graph_def(frozen_path, ours, variables.fill(ours))
    return {
        "variables_frozen": len(nodes["variables"]),
        "variables": nodes["variables"],
        "nodes_before": len(before.node),
        "nodes_after": len(frozen.node),
        "nodes_removed": _count_removed(before, frozen),
    }


def _output_nodes(nodes):
    """Names of the output nodes, each once."""
    return list(dict.fromkeys(end["name"] for end in named_ends(nodes).values()))


def _constants(variables, graph_def, outputs):
    """The part of the graph that computes `outputs`, with every variable as a constant."""
    from tensorflow.python.framework import convert_to_constants

    # the public tf.compat.v1.graph_util function warns on every call that it is deprecated
    # and does just this; of a session it asks for values only
    return convert_to_constants.convert_variables_to_constants_from_session_graph(
        variables, graph_def, outputs
    )


def _strip_for_old_releases(graph_def):
    """Remove attributes at their default, internal ones, devices and debug information, in place."""
    from tensorflow.python.framework import op_def_registry

    for node in graph_def.node:
        node.device = ""
        node.ClearField("experimental_debug_info")
        definition = op_def_registry.get(node.op)
        defaults = {a.name: a.default_value for a in definition.attr if a.HasField("default_value")}
        for name in list(node.attr):
            if name.startswith("_") or (name in defaults and node.attr[name] == defaults[name]):
                del node.attr[name]


def _count_removed(before, after):
    kept = {node.name for node in after.node}
    counts = {}
    for node in before.node:
        if node.name not in kept:
            counts[node.op] = counts.get(node.op, 0) + 1
    return dict(sorted(counts.items()))


def compare_with_keras(
    frozen_path: Path | str,
    nodes: Mapping[str, Any],
    keras_path: Path | str,
    images: Sliced,
    input_scaling: Scaling,
    tolerance: float,
) -> dict[str, Any]:
    """Prove that freezing moved nothing: outputs of both on the same images.

    tolerance : allowed difference as a share of the largest value of the same output, because the error of
        float32 sums grows with the numbers: probabilities are at most 1, logits can be of any size.

    Returns {"images_compared", "max_difference" (of several outputs the largest, and "differences" of each),
    "predictions_equal"}; UserError when the values of an output differ by more than `tolerance`, or when an
    image gets another class (greatest value of an output that is a vector) that Keras finds worse by more
    than that (a tie within rounding is none).
    """
    model = inference_model(keras_path)
    predict, ends = predictor(model), named_ends(nodes)
    alike = values_of(model) if large_graph.is_large(frozen_path) else []
    graph = FrozenGraph(frozen_path, nodes["input"]["name"], _output_nodes(nodes), own=True, alike=alike)
    found = {name: Compared(name, end["shape"], tolerance) for name, end in ends.items()}
    count = images_at_a_time(images.shape[1:])
    for start in range(0, len(images), count):
        x = scale_pixels(images[start : start + count], input_scaling)
        frozen, expected = graph.run_all(x), named_outputs(model, predict(x))
        for name, output in found.items():
            output.add(frozen[ends[name]["name"]], expected[name])
    for output in found.values():
        output.require(frozen_path, keras_path, len(found) > 1)
    differences = {name: output.difference for name, output in found.items()}
    record = {
        "images_compared": len(images),
        "max_difference": max(differences.values()),
        "predictions_equal": not any(output.changed for output in found.values()),
    }
    return record | ({"differences": differences} if len(found) > 1 else {})


class FrozenGraph:
    """A frozen GraphDef ready to run on batches of float input.

    `run(x)` returns the output (N, classes) float32 of every image of x (N, H, W, C), `run_all(x)` several
    by their nodes' names; `batch` is how many images it takes at a time.
    """

    def __init__(
        self,
        path: Path | str,
        input_name: str,
        output_name: str | Sequence[str],
        threads: int | None = None,
        own: bool = False,
        alike: Sequence[np.ndarray] = (),
    ) -> None:
        """own : whether it must be a file of ours, whose seal is there and fits. alike : as for `split`."""
        tf = tensorflow(threads)
        graph_def = tf.compat.v1.GraphDef()
        try:
            if own:
                require_seal(path)
            large = large_graph.is_large(path)
            encoded, constants = large_graph.split(path, alike) if large else (Path(path).read_bytes(), {})
            graph_def.ParseFromString(encoded)
            graph = tf.Graph()
            with graph.as_default():
                tf.import_graph_def(graph_def, name="")
            self._input = graph.get_tensor_by_name(f"{input_name}:0")
            names = [output_name] if isinstance(output_name, str) else list(output_name)
            self._outputs = {name: graph.get_tensor_by_name(f"{name}:0") for name in names}
            self._constants = {graph.get_tensor_by_name(f"{name}:0"): a for name, a in constants.items()}
        except UserError:
            raise
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
        except KeyError as error:
            raise UserError(f"{path}: has no such node ({error.args[0]})") from None
        except Exception as error:  # protobuf's DecodeError and TensorFlow's import errors
            raise UserError(f"{path}: TensorFlow cannot import this graph ({error})") from None
        options = tf.compat.v1.ConfigProto()
        options.graph_options.rewrite_options.disable_meta_optimizer = large
        self._session = tf.compat.v1.Session(graph=graph, config=options)
        shapes = [tensor.shape for op in graph.get_operations() for tensor in op.outputs]
        known = [shape[1:] for shape in shapes if shape.rank and shape[0] is None]
        largest = max((s.num_elements() for s in known if s.is_fully_defined()), default=1)
        self.batch = max(1, min(BATCH, BATCH_VALUES // max(1, largest)))

    def run(self, x: np.ndarray, batch: int | None = None) -> np.ndarray:
        """The only output for float32 images, as (N, values)."""
        (values,) = self.run_all(x, batch).values()
        return values.reshape(len(x), -1)  # (N, 1, 1, classes) of a convolutional network

    def run_all(self, x: np.ndarray, batch: int | None = None) -> dict[str, np.ndarray]:
        """{node's name: output (N, ...)} for float32 images, the last partial batch included.

        batch : images at a time; None: as many as keep the graph's largest tensor within BATCH_VALUES.
        """
        batch = batch or self.batch
        parts = [
            self._session.run(self._outputs, {self._input: x[i : i + batch], **self._constants})
            for i in range(0, len(x), batch)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in self._outputs}
