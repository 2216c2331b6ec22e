"""The raw heads of a detector's ONNX file: the last convolutions in front of what the exporter decodes.

    python -m dpuflow.onnx_graph.heads FILE.onnx

lists them, the largest map first, as `output_node` of the configuration takes them: cut there, the network
ends in maps that the DPU computes, and `decode` says what they mean.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpuflow.base.errors import UserError
from dpuflow.network.devices import of_shares
from dpuflow.onnx_graph.graph import VIEWS
from dpuflow.onnx_graph.model_file import read_model

CONVOLUTIONS = ("Conv", "ConvTranspose")


def raw_heads(path: Path | str) -> dict[str, list[int | None]]:
    """{name of a tensor: its shape behind the batch (None: not told)}, the largest map first.

    The convolutions from which an output of the file is reached without another one; one that reads a softmax
    is none of them, but the mean of a YOLOv8's distributions. UserError for no ONNX
    file, and where there is none.
    """
    model = read_model(path)
    made = {name: node for node in model.graph.node for name in node.output}
    operators = {name: (node.op_type, node.input) for name, node in made.items()}
    heads, seen, pending = [], set(), [entry.name for entry in model.graph.output]
    while pending:
        name = pending.pop()
        if name in seen or name not in made:
            continue
        seen.add(name)
        node = made[name]
        if node.op_type in CONVOLUTIONS and not of_shares(node.input[0], operators.get, VIEWS):
            heads.append(name)
        else:
            pending += node.input
    if not heads:
        raise UserError(f"{path}: no convolution leads to its outputs")
    shapes = _shapes(model)
    order = {node.output[0]: place for place, node in enumerate(model.graph.node) if node.output}
    found = {name: shapes.get(name, [])[1:] for name in heads}
    return dict(sorted(found.items(), key=lambda pair: (-_places(pair[1]), order[pair[0]])))


def _behind_form(made, name):
    """The node that a tensor comes from but for its form; None: an input or a constant."""
    node = made.get(name)
    while node is not None and node.op_type in VIEWS:
        node = made.get(node.input[0])
    return node


def cut_at_scores(path: Path | str) -> list[str] | None:
    """`output_node` of a segmentation's file with outputs that are an ArgMax: the scores in front of it.

    None of a file without such an output. Which score is the greatest dpuflow asks itself, and more of them.
    UserError for no ONNX file.
    """
    model = read_model(path)
    made = {name: node for node in model.graph.node for name in node.output}
    outputs = [entry.name for entry in model.graph.output]
    ends = {name: _behind_form(made, name) for name in outputs}
    cut = {
        name: node.input[0]
        for name, node in ends.items()
        if node is not None and node.op_type == "ArgMax" and node.input[0] in made and not _takes_last(node)
    }
    return list(dict.fromkeys(cut.get(name, name) for name in outputs)) if cut else None


def _takes_last(node):
    return any(attribute.name == "select_last_index" and attribute.i for attribute in node.attribute)


def cut_at_heads(path: Path | str) -> list[str] | None:
    """`output_node` of a detector's file that ends in the exporter's decoding: its raw heads.

    None of a file whose outputs are maps already, of four dimensions each: it stays as it is. UserError as of
    `raw_heads`.
    """
    ends = [len(entry.type.tensor_type.shape.dim) for entry in read_model(path).graph.output]
    return None if set(ends) == {4} else list(raw_heads(path))


def _places(shape):
    """Of a map in ONNX's order (channels, height, width)."""
    return (shape[1] or 0) * (shape[2] or 0) if len(shape) == 3 else 0


def _shapes(model: Any) -> dict[str, list[int | None]]:
    import onnx

    try:
        model = onnx.shape_inference.infer_shapes(model)
    except Exception:  # of a model that it does not understand; then the shapes are not told
        return {}
    return {
        entry.name: [dim.dim_value or None for dim in entry.type.tensor_type.shape.dim]
        for entry in [*model.graph.value_info, *model.graph.output]
    }


def main(words: Sequence[str] | None = None) -> int:
    """Print the heads; the exit status: 0, or 2 (error)."""
    given = list(sys.argv[1:] if words is None else words)
    if len(given) != 1 or given[0].startswith("-"):
        print(__doc__)
        return 0 if given in (["-h"], ["--help"]) else 2
    try:
        heads = raw_heads(given[0])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("output_node:")
    for name, shape in heads.items():
        sides = " x ".join("?" if n is None else str(n) for n in shape) or "not told"
        print(f'  - "{name}"    # channels x height x width: {sides}')
    return 0


if __name__ == "__main__":
    sys.exit(main())
