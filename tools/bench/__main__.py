"""What `python run.py bench` starts; `python tools/bench` does the same."""

import sys
from pathlib import Path

# The folder tools/, where this package is found and what it shares with others.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.bench.comparison import main

if __name__ == "__main__":
    sys.exit(main())
