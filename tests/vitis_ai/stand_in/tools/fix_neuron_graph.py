"""A graph in the form of vai_q_tensorflow's: float ops, FixNeuron nodes behind weights and activations."""

import numpy as np

from dpuflow.tfgraph.graph_def import (
    DT_FLOAT,
    add_constant,
    add_node,
    new_graph,
    write_graph_def,
)

FLOAT = ("type", DT_FLOAT)
NETWORK = "_stand_in_network"


def write_graph(path, quantized, output_node, network_bytes):
    """Write quantize_eval_model.pb for networks of conv, dense, max_pool, flatten and softmax layers."""
    graph, tensors = new_graph(), {}

    def fix(name, x, position, kind):
        return add_node(
            graph, "FixNeuron", f"{name}/{kind}", [x],
            T=FLOAT, quantize_pos=position, bit_width=8, method=1, mode=0, phase=2,
        )  # fmt: skip

    for layer in quantized.network.layers:
        name, position = layer.name, quantized.fix_points.get(layer.name)
        x = tensors[layer.inputs[0]] if layer.inputs else None
        if layer.op == "input":
            y = add_node(graph, "Placeholder", name, dtype=FLOAT, shape=("shape", [-1, *layer.shape]))
        elif layer.op in ("conv", "dense"):
            y = weighted(graph, layer, x, quantized, fix)
        elif layer.op == "max_pool":
            (kw, kh), (sw, sh) = layer.attrs["kernel"], layer.attrs["stride"]
            y = add_node(
                graph, "MaxPool", f"{name}/MaxPool", [x],
                T=FLOAT, ksize=[1, kh, kw, 1], strides=[1, sh, sw, 1], padding="VALID",
            )  # fmt: skip
        elif layer.op == "flatten":
            shape = add_constant(graph, f"{name}/shape", np.array([-1, layer.shape[0]], np.int32))
            tensors[name] = add_node(graph, "Reshape", f"{name}/Reshape", [x, shape], T=FLOAT)
            continue
        elif layer.op == "softmax":
            tensors[name] = add_node(graph, "Softmax", output_node, [x], T=FLOAT)
            continue
        else:
            raise SystemExit(
                f"stand-in vai_q_tensorflow: layer {name} is a {layer.op}, which it does not write"
            )
        tensors[name] = fix(y, y, position, "aquant")
    node = graph.node.add(name="dpuflow_stand_in", op="NoOp")
    node.attr[NETWORK].s = network_bytes
    write_graph_def(path, graph)


def weighted(graph, layer, x, quantized, fix):
    """Convolution or dense layer with bias and activation; returns the name of its last node."""
    name = layer.name
    kernel = layer.weights.transpose(1, 2, 3, 0) if layer.op == "conv" else layer.weights.T
    kernel = add_constant(graph, f"{name}/kernel", kernel.astype(np.float32))
    kernel = fix(kernel, kernel, quantized.weights[name][1], "wquant")
    if layer.op == "conv":
        (sw, sh), padding = layer.attrs["stride"], "SAME" if any(layer.attrs["pad"]) else "VALID"
        y = add_node(
            graph, "Conv2D", f"{name}/Conv2D", [x, kernel], T=FLOAT, strides=[1, sh, sw, 1], padding=padding
        )
    else:
        y = add_node(graph, "MatMul", f"{name}/MatMul", [x, kernel], T=FLOAT)
    bias = add_constant(graph, f"{name}/bias", layer.bias.astype(np.float32))
    bias = fix(bias, bias, quantized.biases[name][1], "wquant")
    y = add_node(graph, "BiasAdd", f"{name}/BiasAdd", [y, bias], T=FLOAT)
    return add_node(graph, "Relu", f"{name}/Relu", [y], T=FLOAT) if layer.attrs["activation"] == "RELU" else y
