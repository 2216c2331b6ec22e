"""The virtual board's `xdputil`: only `query`."""

import json
import sys

from dpuflow.virtual_board import device

if __name__ == "__main__":
    if sys.argv[1:] != ["query"]:
        sys.exit("the virtual board's xdputil knows only: xdputil query")
    print(json.dumps(device.query(), sort_keys=True, indent=4, separators=(",", ":")))
