"""``python -m mandelbox`` runs the program."""

from __future__ import annotations

import sys

from ._program import main
from .errors import HostError

if __name__ == "__main__":
    try:
        main()
    except HostError as error:
        sys.exit(f"error: {error}")
