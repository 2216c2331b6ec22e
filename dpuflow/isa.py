"""`python -m dpuflow.isa`: look at, assemble and check machine code (docs/isa.md)."""

import sys

from dpuflow.dpuczdx8g.isa.shell import main

if __name__ == "__main__":
    sys.exit(main())
