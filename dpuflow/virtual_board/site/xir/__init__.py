"""`xir` of the virtual board."""

from dpuflow.virtual_board.device import VERSION
from dpuflow.virtual_board.xir_api import Graph, Op, Subgraph, Tensor

EMULATED = True
__version__ = VERSION

__all__ = ["EMULATED", "Graph", "Op", "Subgraph", "Tensor", "__version__"]
