"""Run Fractal workflows with each task in its own WebAssembly sandbox.

>>> import mandelbox
>>> result = mandelbox.run("workflow.json", input="images", output="results")  # doctest: +SKIP

The package contains the program ``mandelbox`` and this interface to it. ``docs/python.md`` explains
it with examples.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._events import Event
    from ._executor import SandboxExecutor
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
    from ._batch import Batch, CallResult, Task, batch, map
    from ._process_workflow import process_workflow, process_workflow_sync

    __version__: str

__all__ = [
    "Batch",
    "CallError",
    "CallResult",
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
    "SandboxExecutor",
    "Status",
    "Task",
    "TaskExecutionError",
    "TaskSummary",
    "batch",
    "check",
    "load",
    "map",
    "plan",
    "process_workflow",
    "process_workflow_sync",
    "run",
    "run_async",
    "start",
    "status",
    "__version__",
]

# Modules are imported when they are needed, so that `import mandelbox` takes no time.
_MODULES = {
    "._batch": ("Batch", "CallResult", "Task", "batch", "map"),
    "._events": ("Event",),
    "._executor": ("SandboxExecutor",),
    "._options": ("Options",),
    "._process_workflow": ("process_workflow", "process_workflow_sync"),
    "._result": ("Check", "Plan", "PlannedTask", "Result", "Status", "TaskSummary"),
    "._run": ("Run", "check", "load", "plan", "run", "run_async", "start", "status"),
    ".errors": ("CallError", "DocumentsError", "HostError", "JobExecutionError", "MandelboxError", "Problem", "RunCancelled", "TaskExecutionError"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("mandelbox")
        except PackageNotFoundError:
            return "0+unknown"
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(module, __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
