"""Programs around the services; started from the project's root: ``python -m tools.classify``.

They use the services' own modules, so photos are prepared here exactly as they are when served.
"""

import sys
from pathlib import Path

# The source root, unless the project is installed (pip install -e .).
SOURCE_ROOT = str(Path(__file__).resolve().parents[1] / "app")
if SOURCE_ROOT not in sys.path:
    sys.path.insert(0, SOURCE_ROOT)
