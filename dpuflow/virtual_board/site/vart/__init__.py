"""`vart` of the virtual board."""

from dpuflow.virtual_board.device import VERSION
from dpuflow.virtual_board.vart_api import Runner

EMULATED = True
__version__ = VERSION

__all__ = ["EMULATED", "Runner", "__version__"]
