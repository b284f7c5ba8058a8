"""Exceptions of mandelbox, all below :class:`MandelboxError`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._result import Result

__all__ = [
    "CallError",
    "DocumentsError",
    "HostError",
    "JobExecutionError",
    "MandelboxError",
    "Problem",
    "RunCancelled",
    "TaskExecutionError",
]


class MandelboxError(Exception):
    """Base class of all exceptions of this package."""


@dataclass(frozen=True)
class Problem:
    """A problem of a document, an option or a folder, with its location.

    Attributes:
        message: Description of the problem, and the action to take.
        location: Location as text.
        file: Path of the file, or None for an option.
        pointer: JSON pointer (RFC 6901) of the value in the file, or None.
        line: Line in the file, from 1, or None.
        column: Column in the line, from 1, or None.
    """

    message: str
    location: str = ""
    file: str | None = None
    pointer: str | None = None
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return f"{self.location}: {self.message}" if self.location else self.message


@dataclass(frozen=True)
class CallError:
    """A call that failed.

    Attributes:
        component: Item that the call was for (Fractal v1: component, v2: image); None for a task
            with a single call.
        outcome: Outcome as in ``events.jsonl``, such as ``exited`` or ``timed_out``.
        message: Description of the outcome.
        exit_code: Exit code of the task; None if it did not exit by itself.
        stderr_tail: End of stderr: at most 100,000 bytes of the first failed call, and 4 KiB of the
            others.
        stderr_path: File with the whole stderr, or None if it was not kept.
    """

    component: Any
    outcome: str
    message: str
    exit_code: int | None
    stderr_tail: str
    stderr_path: str | None


class DocumentsError(MandelboxError, ValueError):
    """Documents, options or folders are invalid. Nothing was run, and nothing was written.

    Attributes:
        problems: Every problem that was found.
    """

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        n = len(problems)
        lines = [f"{n} problem{'' if n == 1 else 's'} in the input; nothing was run"]
        super().__init__("\n  ".join(lines + [str(problem) for problem in problems]))

    def __reduce__(self) -> tuple[type[DocumentsError], tuple[list[Problem]]]:
        return type(self), (self.problems,)


class TaskExecutionError(MandelboxError, RuntimeError):
    """A task failed by itself: exit code above 0, an error, or an invalid output.

    The attributes ``workflow_task_id``, ``workflow_task_order`` and ``task_name`` are those of
    Fractal's exception of this name.

    Attributes:
        workflow_task_id: ``id`` of the workflow task, or None if the document has none.
        workflow_task_order: Order of the task in the workflow, or None.
        task_name: Name of the task.
        calls: Calls that failed; the first one decides the kind of the error.
        result: Result as far as the run came, or None.
    """

    def __init__(
        self,
        *args: object,
        workflow_task_id: Any = None,
        workflow_task_order: int | None = None,
        task_name: str | None = None,
        calls: list[CallError] | None = None,
        result: Result | None = None,
    ) -> None:
        super().__init__(*args)
        self.workflow_task_id = workflow_task_id
        self.workflow_task_order = workflow_task_order
        self.task_name = task_name
        self.calls: list[CallError] = calls or []
        self.result = result


class JobExecutionError(MandelboxError, RuntimeError):
    """The sandbox ended a task (trap, time limit, memory limit), or the host could not run it.

    The attributes ``info``, ``cmd_file``, ``stdout_file`` and ``stderr_file`` are those of Fractal's
    exception of this name.

    Attributes:
        info: Description of the failure.
        cmd_file: Always None; there is no script.
        stdout_file: Path of the stdout of the first failed call, or None.
        stderr_file: Path of the stderr of the first failed call, or None.
        calls: Calls that failed.
        result: Result as far as the run came, or None.
    """

    def __init__(
        self,
        *args: object,
        cmd_file: str | None = None,
        stdout_file: str | None = None,
        stderr_file: str | None = None,
        info: str | None = None,
        task_name: str | None = None,
        workflow_task_id: Any = None,
        workflow_task_order: int | None = None,
        calls: list[CallError] | None = None,
        result: Result | None = None,
    ) -> None:
        super().__init__(*args)
        self.cmd_file = cmd_file
        self.stdout_file = stdout_file
        self.stderr_file = stderr_file
        self.info = info
        self.task_name = task_name
        self.workflow_task_id = workflow_task_id
        self.workflow_task_order = workflow_task_order
        self.calls: list[CallError] = calls or []
        self.result = result

    def assemble_error(self) -> str:
        """Return the contents of the named files and ``info`` in one text, as Fractal does."""
        parts = []
        for title, path in (
            ("COMMAND", self.cmd_file),
            ("STDOUT", self.stdout_file),
            ("STDERR", self.stderr_file),
        ):
            if path:
                parts.append(f"{title}:\n{_contents(path)}\n\n")
        if self.info:
            parts.append(f"ADDITIONAL INFO:\n{self.info}\n\n")
        return "JobExecutionError\n\n" + ("".join(parts) or str(self))


class RunCancelled(MandelboxError):
    """The run was cancelled, and its records were saved. ``resume=True`` continues it.

    Attributes:
        result: Result as far as the run came, or None.
    """

    def __init__(self, *args: object, result: Result | None = None) -> None:
        super().__init__(*args)
        self.result = result


class HostError(MandelboxError, OSError):
    """mandelbox itself failed: a disk is full, a permission is missing, the program is missing.

    Attributes:
        errno: Number of the operating system's error, or None.
        filename: File or folder of the error, or None.
    """

    def __init__(
        self, message: str, errno: int | None = None, filename: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.errno = errno
        self.filename = filename

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[type[HostError], tuple[str, int | None, str | None]]:
        return type(self), (self.message, self.errno, self.filename)


def _contents(path: str) -> str:
    if not os.path.exists(path):
        return f"File {path} is missing\n"
    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read()
    return f"Content of {path}:\n{text}" if text else f"File {path} is empty\n"
