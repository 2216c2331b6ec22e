"""Stand-in for `vai_c_xir`: wants a quantized, uncompiled xmodel and compiles what it was written from."""

from pathlib import Path

import standin_compile
from common import Strict

from dpuflow.network.quantized_file import read_quantized
from dpuflow.xir import Graph


def main():
    parser = Strict("vai_c_xir")
    for flag, name in (("-x", "xmodel"), ("-a", "arch"), ("-o", "output_dir"), ("-n", "net_name")):
        parser.add_argument(flag, f"--{name}", required=True)
    parser.add_argument("--options", default="{}")
    arguments = parser.parse_args()
    standin_compile.check_options(parser, arguments.options, ("mode", "output_ops"))
    graph = Graph.load(arguments.xmodel)
    types = {op.type for op in graph.ops}
    if "fix" not in types or any(name.endswith("-fix") for name in types) or graph.root.children:
        parser.refuse(f"{arguments.xmodel} is no quantized, uncompiled graph")
    # dpuflow cannot read a quantized graph back; the model that it was written from lies two folders above
    quantized = read_quantized(Path(arguments.xmodel).parent.parent / "quantized_model.h5")
    target = standin_compile.read_arch(parser, arguments.arch)
    standin_compile.write("vai_c_xir", quantized, target, arguments.output_dir, arguments.net_name)


main()
