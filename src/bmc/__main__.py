"""`python -m bmc`; a launcher starts this file by its path."""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).parents[1])

from bmc.cli import main

if __name__ == "__main__":
    main()
