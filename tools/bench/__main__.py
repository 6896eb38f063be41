"""What `python run.py bench` starts; `python -m tools.bench` does the same."""

import sys

from tools.bench.comparison import main

if __name__ == "__main__":
    sys.exit(main())
