"""Environments for tasks in Python: an interpreter built for WASI, packages, and what they lack.

An environment is a folder that ``mandelbox run --python ENV`` and other commands take. Create one
with ``python -m mandelbox.env create ENV PACKAGE...``.
"""

from ._check import check
from ._create import create

__all__ = ["check", "create"]
