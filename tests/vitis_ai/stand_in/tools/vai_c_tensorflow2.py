"""Stand-in for `vai_c_tensorflow2`."""

import h5py
import standin_compile
from common import Strict, from_bytes


def main():
    parser = Strict("vai_c_tensorflow2")
    for flag, name in (("-m", "model"), ("-a", "arch"), ("-o", "output_dir"), ("-n", "net_name")):
        parser.add_argument(flag, f"--{name}", required=True)
    parser.add_argument("--options", default="{}")
    arguments = parser.parse_args()
    standin_compile.check_options(parser, arguments.options, ("mode", "output_ops"))
    with h5py.File(arguments.model, "r") as file:
        if "stand_in_network" not in file:
            parser.refuse(f"{arguments.model} is not quantized")
        network = file["stand_in_network"][()].tobytes()
    target = standin_compile.read_arch(parser, arguments.arch)
    standin_compile.write(
        "vai_c_tensorflow2", from_bytes(network), target, arguments.output_dir, arguments.net_name
    )


main()
