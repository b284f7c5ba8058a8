"""The local backend of fractal-server 2.9.2, for workflows of version 1."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from fractal_server.app.runner import v1 as runner
from fractal_server.app.runner.exceptions import JobExecutionError as FractalJobError
from fractal_server.app.runner.exceptions import TaskExecutionError as FractalTaskError
from fractal_server.app.runner.v1 import _local as local
from fractal_server.config import get_settings
from fractal_server.syringe import Inject

from .._process_workflow import Job, Keywords
from ..errors import JobExecutionError, MandelboxError, TaskExecutionError
from . import expect_parameters, options

if TYPE_CHECKING:
    from typing_extensions import Unpack

_original: Any = None


async def process_workflow(**keywords: Unpack[Keywords]) -> dict[str, Any]:
    """Run a workflow in the sandbox, with the keywords and the exceptions of fractal-server."""
    try:
        return await Job(**keywords, environment=environment(), options=options()).run()
    except (TaskExecutionError, JobExecutionError) as error:
        raise exception_of(error) from error


def environment() -> dict[str, str]:
    """Return the variables that the program reads, from fractal-server's settings.

    They may be in the file ``.fractal_server.env`` and not in the environment.
    """
    settings = Inject(get_settings)
    found = {"FRACTAL_RUNNER_TASKS_INCLUDE_IMAGE": settings.FRACTAL_RUNNER_TASKS_INCLUDE_IMAGE}
    config = settings.FRACTAL_LOCAL_CONFIG_FILE
    if config is not None:
        found["FRACTAL_LOCAL_CONFIG_FILE"] = os.fspath(config)
    return found


def exception_of(error: TaskExecutionError | JobExecutionError) -> Exception:
    """Return the exception of fractal-server's own class."""
    if isinstance(error, TaskExecutionError):
        task_error: Exception = FractalTaskError(
            *error.args,
            workflow_task_id=error.workflow_task_id,
            workflow_task_order=error.workflow_task_order,
            task_name=error.task_name,
        )
        return task_error
    stderr = error.calls[0].stderr_tail if error.calls else ""
    job_error: Exception = FractalJobError(
        *error.args, info="\n".join(part for part in (error.info, stderr) if part)
    )
    return job_error


def install() -> None:
    """Replace the local backend."""
    global _original
    if _original is not None:
        return
    for target, name in ((runner, "local_process_workflow"), (local, "process_workflow")):
        if not hasattr(target, name):
            raise MandelboxError(f"fractal-server has no {target.__name__}.{name}")
    expect_parameters(local.process_workflow, set(Keywords.__annotations__), "process_workflow")
    _original = local.process_workflow
    _register(process_workflow)


def uninstall() -> None:
    """Restore the local backend."""
    global _original
    if _original is not None:
        _register(_original)
        _original = None


def _register(function: Any) -> None:
    runner.local_process_workflow = function
    runner._backends["local"] = function
    local.process_workflow = function
