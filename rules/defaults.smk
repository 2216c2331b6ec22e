# Where this workflow lies, and its default configuration: the working folder's own, else the workflow's.

import os
import sys
from pathlib import Path

# of this workflow, also where it is a module of another one
ROOT = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

DEFAULTS = next(
    (name for name in ("config/config.yaml", str(ROOT / "config/config.yaml")) if os.path.exists(name)),
    "config/config.yaml",
)
