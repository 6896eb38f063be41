"""The entry point of `python run.py chaos`; the same as `python -m tools.chaos`."""

import sys

from tools.chaos.suite import main

if __name__ == "__main__":
    sys.exit(main())
