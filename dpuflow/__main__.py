"""`python -m dpuflow`: the command `dpuflow` (docs/command.md)."""

import sys

from dpuflow.command.shell import main

if __name__ == "__main__":
    sys.exit(main())
