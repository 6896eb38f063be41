"""Programs around the services. Start them from the project's root: ``python -m tools.classify``.

They import the services' own modules, so they prepare photos exactly as the service does.
"""

import sys
from pathlib import Path

# The source root, unless the project is installed (pip install -e .).
SOURCE_ROOT = str(Path(__file__).resolve().parents[1] / "app")
if SOURCE_ROOT not in sys.path:
    sys.path.insert(0, SOURCE_ROOT)
