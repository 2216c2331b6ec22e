"""A SavedModel folder (TensorFlow 1 or 2) -> the frozen graph of one of its signatures.

A SavedModel is a program with a checkpoint beside it. Nothing of the program runs here: functions are
written out in place (by TensorFlow's optimizer, which computes nothing for that), variables become the
constants that the checkpoint holds, and what does not lead to the signature's output is left out. Which
tensor of the checkpoint a variable has is read from the ops that would restore it.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dpuflow.base.errors import UserError
from dpuflow.base.memory_limit import bounded_memory
from dpuflow.base.outputs import ONLY
from dpuflow.base.tensorflow_env import tensorflow
from dpuflow.keras_models.foreign_model import several_inputs

FILE = "saved_model.pb"
VARIABLES = "variables/variables"
DEFAULT = "serving_default"
NO_SIGNATURES = ("__saved_model_init_op", "__saved_model_train_op")
"""Names among the signatures that stand for ops."""
MAX_GRAPH = 1 << 30
MAX_NODES = 30_000
"""Nodes of a graph with its functions written out; a large network has some thousands."""
CALLS = ("PartitionedCall", "StatefulPartitionedCall")
HANDLES = ("VarHandleOp", "VariableV2", "Variable")
RESTORED = {"AssignVariableOp": (0, 1), "Assign": (0, 1)}
"""Op that gives a variable its value -> positions of the variable and the value."""
OUTPUT, RESTORE = "dpuflow_output", "dpuflow_restore"
"""Nodes put behind the output (of several OUTPUT_NAME) and behind what restores the variables."""


def saved_model_files(folder: Path | str) -> list[str]:
    """The files of a SavedModel that its network depends on, sorted; [] where there is none."""
    folder = Path(folder)
    if not (folder / FILE).is_file():
        return []
    found = [folder / FILE, *sorted((folder / VARIABLES).parent.glob("variables.*"))]
    return [str(path) for path in found]


def freeze_saved_model(
    folder: Path | str, signature: str | None = None, output: str | Iterable[str] | None = None
) -> tuple[bytes, str, dict[str, str], list[str]]:
    """Freeze one signature.

    Parameters
    ----------
    folder : the SavedModel. signature : its name; None: the one that there is, or `serving_default`.
    output : name of one of its outputs, a list of names, or {output's name (`base.outputs`): such a name};
        None: all.

    Returns
    -------
    (binary GraphDef, name of the input node, {output's name: name of its node}, notes: what was chosen, in
    words).

    Raises
    ------
    UserError : no SavedModel, a damaged one, a choice that only the user can make (the message lists the
        names), what no inference graph holds.
    """
    meta = _meta_graph(folder)
    name, chosen = _signature(folder, meta, signature)
    source = _one(folder, name, "input", chosen.inputs, None)
    wanted = sorted(chosen.outputs) if output is None else [output] if isinstance(output, str) else output
    named = dict(output) if isinstance(output, Mapping) else {end: end for end in wanted}
    tensors = {end: _one(folder, name, "output", chosen.outputs, key)[1] for end, key in named.items()}
    nodes_of = {ONLY: OUTPUT} if len(tensors) == 1 else {end: f"{OUTPUT}_{end}" for end in tensors}
    _check_size(folder, meta.graph_def)
    try:
        with bounded_memory(folder, meta.ByteSize()):
            graph = _inlined(meta, dict(zip(nodes_of.values(), tensors.values(), strict=True)))
    except UserError:
        raise
    except Exception as error:  # whatever a damaged graph makes of TensorFlow
        raise UserError(f"{folder}: TensorFlow cannot read its graph ({_line(error)})") from None
    _check_calls(folder, graph)
    nodes = {node.name: node for node in graph.node}
    for end, node in nodes_of.items():
        if _node(source[1]) not in _ancestors(nodes, [node]):
            of = "output" if len(nodes_of) == 1 else f"output {end!r}"
            raise UserError(
                f"{folder}: signature {name!r}: its {of} does not depend on its input {source[0]!r}"
            )
    _bind(folder, nodes, _ancestors(nodes, nodes_of.values()))
    result = _pruned(nodes, _node(source[1]), list(nodes_of.values()))
    listed = ", ".join(repr(key) for key in named.values())
    notes = [f"signature {name!r}, input {source[0]!r}, output {listed}"]
    return result.SerializeToString(deterministic=True), _node(source[1]), nodes_of, notes


def _line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _meta_graph(folder):
    tensorflow()
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    path = Path(folder) / FILE
    model = saved_model_pb2.SavedModel()
    try:
        if path.stat().st_size > MAX_GRAPH:
            raise UserError(f"{path}: more than {MAX_GRAPH >> 20} MiB, which is no network for a DPU")
        model.ParseFromString(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name the folder that holds it") from None
    except DecodeError:
        raise UserError(f"{path}: damaged or no SavedModel; copy or save it again") from None
    found = [graph for graph in model.meta_graphs if "serve" in graph.meta_info_def.tags]
    found = found or list(model.meta_graphs)
    if not found:
        raise UserError(f"{path}: holds no graph; save the model again")
    if len(found) > 1:
        tags = " and ".join("+".join(graph.meta_info_def.tags) for graph in found)
        raise UserError(
            f"{path}: holds several graphs ({tags}), none of them alone for serving; export it again"
        )
    return found[0]


def _signature(folder, meta, wanted):
    """(name, SignatureDef)."""
    named = {n: s for n, s in meta.signature_def.items() if n not in NO_SIGNATURES and s.outputs}
    choices = ", ".join(map(repr, sorted(named))) or "none"
    if wanted is not None and wanted not in named:
        raise UserError(f"{folder}: no signature {wanted!r} (models.NAME.signature); it has {choices}")
    if wanted is None and len(named) > 1:
        if DEFAULT not in named:
            raise UserError(f"{folder}: name one of its signatures with models.NAME.signature: {choices}")
        wanted = DEFAULT
    if not named:
        raise UserError(
            f"{folder}: has no signature, so nothing says what its input and output are; export it with "
            "model.export(FOLDER) or tf.saved_model.save(model, FOLDER, signatures=...)"
        )
    name = wanted or next(iter(named))
    return name, named[name]


def _one(folder, signature, what, tensors, wanted):
    """(name, tensor) of the one input or output of a signature."""
    choices = ", ".join(map(repr, sorted(tensors))) or "none"
    if wanted is None and len(tensors) == 1:
        wanted = next(iter(tensors))
    if wanted is None and len(tensors) > 1:
        raise UserError(f"{folder}: signature {signature!r} {several_inputs(len(tensors))}: {choices}")
    if wanted is None or wanted not in tensors:
        key = f"; name one with models.NAME.{what}_node" if what == "output" and tensors else ""
        missing = f"no {what} {wanted!r}" if wanted else f"{len(tensors)} {what}s"
        raise UserError(f"{folder}: signature {signature!r} has {missing}, expected one of {choices}{key}")
    if not tensors[wanted].name:
        raise UserError(f"{folder}: {what} {wanted!r} of signature {signature!r} is no plain tensor")
    return wanted, tensors[wanted].name


def _node(tensor):
    return tensor.removeprefix("^").partition(":")[0]


def _inlined(meta, outputs):
    """The main graph with its functions written out, and Identity nodes {name: tensor} behind its outputs."""
    from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, rewriter_config_pb2
    from tensorflow.python.grappler import tf_optimizer

    work = meta_graph_pb2.MetaGraphDef()
    work.graph_def.CopyFrom(meta.graph_def)
    for node in (*work.graph_def.node, *(n for f in work.graph_def.library.function for n in f.node_def)):
        node.device = ""
    for name, tensor in outputs.items():
        end = work.graph_def.node.add(name=name, op="Identity", input=[tensor])
        end.attr["T"].type = 1
    ends = list(outputs)
    if meta.saver_def.restore_op_name:
        restore = _node(meta.saver_def.restore_op_name)
        ends.append(work.graph_def.node.add(name=RESTORE, op="NoOp", input=[f"^{restore}"]).name)
    work.collection_def["train_op"].node_list.value.extend(ends)
    config = config_pb2.ConfigProto()
    options = config.graph_options.rewrite_options
    options.optimizers.append("function")
    options.min_graph_nodes = -1
    options.function_optimization = rewriter_config_pb2.RewriterConfig.AGGRESSIVE
    options.meta_optimizer_iterations = rewriter_config_pb2.RewriterConfig.ONE
    return tf_optimizer.OptimizeGraph(config, work)


def _check_size(folder, graph):
    """UserError where written-out functions would be more nodes than any network's, or without end.

    A function that calls two that call two ... is small in the file and fills the memory when written out.
    """
    functions = {function.signature.name: function.node_def for function in graph.library.function}
    sizes: dict[str, int | None] = {}

    def size(name: str) -> int:
        if name not in sizes:
            sizes[name] = None  # under way
            sizes[name] = total(functions[name])
        found = sizes[name]
        if found is None:
            raise UserError(f"{folder}: its function {name!r} calls itself, as no network for a DPU does")
        return found

    def total(nodes: Sequence[Any]) -> int:
        found = len(nodes)
        for node in nodes:
            called = {value.func.name for value in node.attr.values() if value.HasField("func")} | {node.op}
            found += sum(size(name) for name in sorted(called & functions.keys()))
        if found > MAX_NODES:
            raise UserError(
                f"{folder}: its functions, written out, are more than {MAX_NODES} nodes, which is no network "
                "for a DPU"
            )
        return found

    try:
        total(graph.node)
    except RecursionError:
        raise UserError(f"{folder}: its functions call each other too deeply") from None


def _check_calls(folder, graph):
    for node in graph.node:
        if node.op in CALLS:
            raise UserError(f"{folder}: {node.name!r} calls a function that cannot be written out in place")


def _ancestors(nodes: Mapping[str, Any], ends: Iterable[str]) -> set[str]:
    """Names of all nodes whose values lead to `ends`; control inputs carry none."""
    seen: set[str] = set()
    waiting = list(ends)
    while waiting:
        name = waiting.pop()
        if name in seen or name not in nodes:
            continue
        seen.add(name)
        waiting += [_node(i) for i in nodes[name].input if not i.startswith("^")]
    return seen


def _origin(nodes, tensor):
    """(node, output index) behind Identity nodes."""
    while True:
        node = nodes.get(_node(tensor))
        if node is None or node.op not in ("Identity", "Cast") or node.op == "Cast":
            return node, int(tensor.partition(":")[2] or 0)
        tensor = node.input[0]


def _bind(folder, nodes, forward):
    """Make constants of the variables, and Identity nodes of what reads them."""
    handles = [n for n in forward if nodes[n].op in HANDLES]
    if not handles:
        return
    reader = _checkpoint(folder)
    keys = _restored(folder, nodes)
    for name in sorted(forward):
        node = nodes[name]
        if node.op == "ReadVariableOp":
            handle, _ = _origin(nodes, node.input[0])
            if handle is None or handle.op not in HANDLES:
                raise UserError(f"{folder}: {name!r} reads a variable that is none of the file's")
            dtype = node.attr["dtype"].type
            del node.input[:]
            node.input.append(handle.name)
            node.op = "Identity"
            node.attr.clear()
            node.attr["T"].type = dtype
    for name in sorted(handles):
        _make_constant(folder, nodes[name], reader, keys.get(name))


def _make_constant(folder, node, reader, key):
    from tensorflow import make_tensor_proto

    key = key or node.attr["shared_name"].s.decode("utf-8", "replace") or node.name
    dtype = node.attr["dtype"].type
    wanted = [dim.size for dim in node.attr["shape"].shape.dim]
    try:
        value = reader.get_tensor(key)
    except Exception as error:
        raise UserError(f"{folder}: variable {node.name!r}: not in its checkpoint ({_line(error)})") from None
    if list(value.shape) != wanted and -1 not in wanted:
        raise UserError(
            f"{folder}: variable {node.name!r} has the shape {wanted}, its checkpoint {list(value.shape)}"
        )
    node.op = "Const"
    del node.input[:]
    node.attr.clear()
    node.attr["dtype"].type = dtype
    node.attr["value"].tensor.CopyFrom(make_tensor_proto(value, dtype=dtype))


def _checkpoint(folder):
    tf = tensorflow()
    try:
        return tf.train.load_checkpoint(str(Path(folder) / VARIABLES))
    except Exception as error:  # TensorFlow's own kinds
        raise UserError(
            f"{folder}: its variables cannot be read ({_line(error)}); copy the whole folder again, with "
            f"{VARIABLES}.index and .data-*"
        ) from None


def _restored(folder, nodes):
    """{variable's node: its key in the checkpoint}, by the ops that would restore it."""
    keys = {}
    for node in nodes.values():
        if node.op not in RESTORED:
            continue
        variable, value = (_origin(nodes, node.input[position])[0] for position in RESTORED[node.op])
        _, index = _origin(nodes, node.input[RESTORED[node.op][1]])
        if variable is None or value is None or value.op != "RestoreV2" or variable.op not in HANDLES:
            continue
        names, slices = (_texts(nodes, value.input[position]) for position in (1, 2))
        if index >= len(names) or index >= len(slices) or slices[index]:
            raise UserError(f"{folder}: variable {variable.name!r} is kept in slices, which are not read")
        keys[variable.name] = names[index]
    return keys


def _texts(nodes, tensor):
    """The texts of a constant."""
    node, _ = _origin(nodes, tensor)
    if node is None or node.op != "Const":
        return []
    from tensorflow import make_ndarray

    return [text.decode("utf-8", "replace") for text in make_ndarray(node.attr["value"].tensor).reshape(-1)]


def _pruned(nodes, source, outputs):
    """GraphDef of what leads to the outputs, the input as a placeholder."""
    from tensorflow.core.framework import graph_pb2

    graph = graph_pb2.GraphDef()
    graph.versions.producer = 134
    if nodes[source].op == "PlaceholderWithDefault":
        nodes[source].op = "Placeholder"
        del nodes[source].input[:]
    kept = _ancestors(nodes, outputs)
    for name, node in nodes.items():
        if name not in kept:
            continue
        copied = graph.node.add()
        copied.CopyFrom(node)
        data = [i for i in node.input if not i.startswith("^")]
        del copied.input[:]
        copied.input.extend(data)
        for key in [key for key in copied.attr if key.startswith("_")]:
            del copied.attr[key]
    return graph
