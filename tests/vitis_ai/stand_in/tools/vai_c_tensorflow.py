"""Stand-in for `vai_c_tensorflow`."""

import standin_compile
from common import Strict, from_bytes
from fix_neuron_graph import NETWORK

from dpuflow.tfgraph.graph_def import read_graph_def


def main():
    parser = Strict("vai_c_tensorflow")
    for name in ("frozen_pb", "arch", "output_dir", "net_name", "options"):
        parser.add_argument(f"--{name}", required=True)
    arguments = parser.parse_args()
    graph = read_graph_def(arguments.frozen_pb)
    if not any(node.op == "FixNeuron" for node in graph.node):
        parser.refuse(f"{arguments.frozen_pb} is not quantized")
    options = standin_compile.check_options(parser, arguments.options, ("input_shape", "mode", "output_ops"))
    source = next(node for node in graph.node if node.op == "Placeholder")
    shape = ",".join(str(max(1, dim.size)) for dim in source.attr["shape"].shape.dim)
    if options["input_shape"] != shape:
        parser.refuse(f"input_shape {options['input_shape']}, but the placeholder is {shape}")
    network = next(node for node in graph.node if node.name == "dpuflow_stand_in").attr[NETWORK].s
    target = standin_compile.read_arch(parser, arguments.arch)
    standin_compile.write(
        "vai_c_tensorflow", from_bytes(network), target, arguments.output_dir, arguments.net_name
    )


main()
