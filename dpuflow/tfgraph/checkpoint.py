"""Keras H5 -> TensorFlow checkpoint, complete GraphDef and the discovered node names."""

import os
import warnings
from pathlib import Path
from typing import Any

import h5py

from dpuflow.base.outputs import ends_of
from dpuflow.base.tensorflow_env import keras, tensorflow
from dpuflow.base.writing import explained_writing, scratch_folder
from dpuflow.keras_models.keras_file import built_from_config, checked_config
from dpuflow.keras_models.outputs import named_outputs
from dpuflow.keras_models.stored_weights import stored_value, stored_weights
from dpuflow.network.groups import dense_kernel

CHECKPOINT = "tfchkpt.ckpt"
CHECKPOINT_FILES = (
    f"{CHECKPOINT}.meta",
    f"{CHECKPOINT}.index",
    f"{CHECKPOINT}.data-00000-of-00001",
    "checkpoint",
)
GRAPH = "tf_complete_model.pb"


def convert(keras_path: Path | str, folder: Path | str) -> dict[str, Any]:
    """Rebuild an H5 model as an inference graph and save it the TensorFlow 1 way.

    The model is loaded in graph mode with learning phase 0, so batch norm uses its
    moving averages and dropout vanishes; `Saver.save` writes the checkpoint and its
    MetaGraph, `write_graph` the nodes alone (docs/reference/tutorial.md).

    Parameters
    ----------
    keras_path : the trained H5 model.
    folder : where the checkpoint files and tf_complete_model.pb go.

    Returns
    -------
    dict : the content of nodes.json: {"input": {name, tensor, shape, dtype},
        "output": {...} (of several outputs "outputs": {output's name: {...}}),
        "variables": [names]}; shapes have null for the batch.
    """
    tf, K = tensorflow(), keras()
    config = checked_config(keras_path)
    prefix = Path(folder) / CHECKPOINT
    try:
        with explained_writing(prefix), scratch_folder(prefix) as scratch:
            nodes = _write(tf, K, keras_path, config, scratch)
            for name in (*CHECKPOINT_FILES, GRAPH):
                os.replace(scratch / name, prefix.with_name(name))
    finally:
        K.backend.clear_session()
    return nodes


def _write(tf, K, keras_path, config, folder):
    """Write the checkpoint and the graph to `folder`; returns the nodes."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        model = _inference_copy(K, keras_path, config)
        _give_weights(session, keras_path, model)
        saver = tf.compat.v1.train.Saver(model.weights, save_relative_paths=True)
        saver.save(session, str(folder / CHECKPOINT))
        tf.io.write_graph(session.graph.as_graph_def(), str(folder), GRAPH, as_text=False)
        # a session that ends leaves them in memory
        session.run([tf.raw_ops.DestroyResourceOp(resource=variable.handle) for variable in model.weights])
        return {
            "input": _describe(model.inputs[0]),
            **ends_of({name: _describe(t) for name, t in named_outputs(model, model.outputs).items()}),
            "variables": sorted(variable.op.name for variable in model.weights),
        }


def _give_weights(session, keras_path, model):
    """Give the variables their values, all in one step, for each of which TensorFlow goes through the graph.

    Not in Keras' own session: it would add initialization nodes in the order of memory addresses, and the
    graph's bytes would differ from run to run.
    """
    initializers, values = [], {}
    with h5py.File(keras_path, "r") as file:
        for variable, dataset in stored_weights(keras_path, file, model):
            value = stored_value(dataset)
            if value.shape != tuple(variable.shape):  # the kernel of a grouped convolution
                value = dense_kernel(value, variable.shape[2])
            initializers.append(variable.initializer)
            values[variable.initializer.inputs[1]] = value
    session.run(initializers, values)


def _inference_copy(K, keras_path, config):
    """The same architecture in the current graph, in inference mode (learning phase 0)."""
    # the initializers' random seeds stand in the graph
    K.utils.set_random_seed(0)
    with warnings.catch_warnings():  # deprecated, and the one way in graph mode
        warnings.simplefilter("ignore")
        K.backend.set_learning_phase(0)
    return built_from_config(keras_path, _without_groups(config))


def _without_groups(config):
    """Grouped convolutions as full ones: TensorFlow 1 has none on a processor, and a DPU has none, either.

    Keras makes a call of a compiled function of them, which a frozen graph cannot hold.
    """
    if isinstance(config, dict):
        config = {key: _without_groups(value) for key, value in config.items()}
        if config.get("class_name") == "Conv2D":
            config["config"]["groups"] = 1
    elif isinstance(config, list | tuple):
        config = type(config)(_without_groups(value) for value in config)
    return config


def _describe(tensor):
    return {
        "name": tensor.op.name,
        "tensor": tensor.name,
        "shape": tensor.shape.as_list(),
        "dtype": tensor.dtype.name,
    }
