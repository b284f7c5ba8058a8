"""Run Fractal workflows with each task in its own WebAssembly sandbox.

>>> import mandelbox
>>> result = mandelbox.run("workflow.json", input="images", output="results")  # doctest: +SKIP

The package contains the program ``mandelbox`` and this interface to it. ``docs/python.md`` explains
it with examples.
"""

from __future__ import annotations

from typing import Any

from ._events import Event
from ._options import Options
from ._result import Check, Plan, PlannedTask, Result, Status, TaskSummary
from ._run import Run, check, load, plan, run, run_async, start, status
from .errors import (
    CallError,
    DocumentsError,
    HostError,
    JobExecutionError,
    MandelboxError,
    Problem,
    RunCancelled,
    TaskExecutionError,
)

__all__ = [
    "CallError",
    "Check",
    "DocumentsError",
    "Event",
    "HostError",
    "JobExecutionError",
    "MandelboxError",
    "Options",
    "Plan",
    "PlannedTask",
    "Problem",
    "Result",
    "Run",
    "RunCancelled",
    "Status",
    "TaskExecutionError",
    "TaskSummary",
    "__version__",
    "check",
    "load",
    "plan",
    "run",
    "run_async",
    "start",
    "status",
]

__version__: str


def __getattr__(name: str) -> Any:
    # Looking up the version takes longer than importing all of this package.
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("mandelbox")
        except PackageNotFoundError:
            return "0+unknown"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
