"""The entry point of `python run.py bench`; the same as `python -m tools.bench`."""

import sys

from tools.bench.comparison import main

if __name__ == "__main__":
    sys.exit(main())
