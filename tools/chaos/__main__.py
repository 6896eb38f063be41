"""What `python run.py chaos` starts; `python tools/chaos` does the same."""

import sys
from pathlib import Path

# The folder tools/, where this package is found and what it shares with others.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.chaos.suite import main

if __name__ == "__main__":
    sys.exit(main())
