"""Stand-in for `vai_q_tensorflow quantize`.

Checks the command line, imports the input function as the tool does, calibrates with dpuflow's own quantizer
and writes a graph with FixNeuron nodes.
"""

import os
import sys
from pathlib import Path

import numpy as np
from common import BANNER, Strict, to_bytes
from fix_neuron_graph import write_graph

from dpuflow.network import QuantizedNetwork
from dpuflow.quantize.compat_vai_q import choose_fix_points
from dpuflow.quantize.folding import fold
from dpuflow.tfgraph.graph_def import read_graph_def
from dpuflow.tfgraph.graph_reader import read_network

SWITCHES = {  # option -> allowed values, as the tool documents them
    "method": (0, 1, 2), "weight_bit": (8,), "activation_bit": (8,), "skip_check": (0, 1),
    "align_concat": (0, 1, 2), "align_pool": (0, 1, 2), "adjust_shift_bias": (0, 1, 2),
    "adjust_shift_cut": (0, 1),
    "simulate_dpu": (0, 1), "scale_all_avgpool": (0, 1), "do_cle": (0, 1), "replace_relu6": (0, 1),
    "replace_sigmoid": (0, 1), "replace_softmax": (0, 1),
}  # fmt: skip
SINCE_3_0 = {"fold_constant": (0, 1), "keep_float_weight": (0, 1), "add_shapes": (0, 1)}


def parse():
    parser = Strict("vai_q_tensorflow")
    parser.add_argument("command", choices=["quantize"])
    for name in (
        "input_frozen_graph",
        "input_nodes",
        "input_shapes",
        "output_nodes",
        "input_fn",
        "output_dir",
    ):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--calib_iter", type=int, default=100)
    switches = dict(SWITCHES)
    if os.environ["STAND_IN_RELEASE"] != "2.5":
        switches |= SINCE_3_0
    for name, choices in switches.items():
        parser.add_argument(f"--{name}", type=int, choices=choices)
    return parser, parser.parse_args()


def check_graph(parser, arguments):
    """Node names and shape against the graph."""
    nodes = {node.name: node for node in read_graph_def(arguments.input_frozen_graph).node}
    source = nodes.get(arguments.input_nodes)
    if source is None or source.op != "Placeholder":
        parser.refuse(f"no placeholder {arguments.input_nodes!r} in the graph")
    if arguments.output_nodes not in nodes:
        parser.refuse(f"no node {arguments.output_nodes!r} in the graph")
    sizes = [dim.size for dim in source.attr["shape"].shape.dim]
    shape = ",".join("?" if size == -1 else str(size) for size in sizes)
    if arguments.input_shapes != shape:
        parser.refuse(f"--input_shapes {arguments.input_shapes}, but the placeholder is {shape}")
    return sizes[1:]


def calibration_batches(parser, arguments, sizes):
    """Every batch, through the module as the tool finds it: on the path, or in the working directory."""
    sys.path.append("./")
    module_name, _, function_name = arguments.input_fn.rpartition(".")
    function = getattr(__import__(module_name, fromlist=["*"]), function_name)
    batches = []
    for step in (
        0,
        *range(arguments.calib_iter),
    ):  # the tool's check of the float graph asks for batch 0 first
        fed = function(step)
        if list(fed) != [arguments.input_nodes]:
            parser.refuse(f"the input function feeds {list(fed)}, not {arguments.input_nodes!r}")
        batch = fed[arguments.input_nodes]
        if not isinstance(batch, np.ndarray) or batch.dtype != np.float32 or list(batch.shape[1:]) != sizes:
            parser.refuse(
                f"the input function gives {getattr(batch, 'dtype', type(batch))} {np.shape(batch)}"
            )
        batches.append(batch)
    return batches[1:]


def main():
    parser, arguments = parse()
    print(BANNER.format("vai_q_tensorflow"))
    sizes = check_graph(parser, arguments)
    print("INFO: Checking Float Graph...")
    batches = calibration_batches(parser, arguments, sizes)
    print("INFO: Float Graph Check Done.")
    print(f"INFO: Calibrating for {arguments.calib_iter} iterations...")
    network, _ = fold(
        read_network(arguments.input_frozen_graph, arguments.input_nodes, arguments.output_nodes)
    )
    method = "non_overflow" if arguments.method == 0 else "min_diffs"
    images = np.concatenate(batches)
    positions, weights, biases, _, changes = choose_fix_points(
        network, images, method, len(batches[0]), equalize=arguments.do_cle == 1
    )
    print(f"\r100% ({len(batches)} of {len(batches)}) |####| Elapsed Time: 0:00:01 Time:  0:00:01")
    print("INFO: Calibration Done.")
    for change in changes:
        if "shift_bias" in change["why"]:
            node, value = change["tensor"].rpartition("/")[0], change["why"].rpartition(" ")[2]
            print(
                "2024-01-01 00:00:00.000000: W tensorflow/contrib/decent_q/utils/graph_quantizer.cc:1681] "
                f"[DECENT_WARNING] Shift bias of node {node}/Conv2D is {value}. It exceed range [0, 16], "
                f"modify quantize pos from {change['from']} to {change['to']}"
            )
    quantized = QuantizedNetwork(network, positions, weights, biases, {"subtract": 0, "divide": 1})
    folder = Path(arguments.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    write_graph(folder / "quantize_eval_model.pb", quantized, arguments.output_nodes, to_bytes(quantized))
    print("********************* Quantization Summary *********************      ")
    print(f"INFO: Output:       \n  quantize_eval_model: {folder}/quantize_eval_model.pb ")


main()
