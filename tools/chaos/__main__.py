"""What `python run.py chaos` starts; `python -m tools.chaos` does the same."""

import sys

from tools.chaos.suite import main

if __name__ == "__main__":
    sys.exit(main())
