"""Fractal's function ``process_workflow`` (fractal-server v1), with the same keywords and exceptions."""

from __future__ import annotations

import inspect
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from ._run import Run
from .errors import (
    DocumentsError,
    JobExecutionError,
    MandelboxError,
    Problem,
    TaskExecutionError,
)

if TYPE_CHECKING:
    from typing_extensions import Required, Unpack

    from ._options import PathLike

__all__ = ["Keywords", "process_workflow", "process_workflow_sync"]

_PAUSE_S = 0.05
#: Records of a run that Fractal's users look at.
_RECORDS = ("metadata.json", "history.json")
#: Words of Fractal's error for a component list that is missing. The program finds it before the
#: run if no task before can add it.
_MISSING_LIST = "is missing in metadata keys"
#: Keys of a workflow task, and of a task, for objects without ``model_dump``.
_ENTRY_KEYS = ("id", "order", "args", "meta")
_TASK_KEYS = (
    "id",
    "name",
    "command",
    "source",
    "input_type",
    "output_type",
    "meta",
    "version",
    "args_schema",
    "args_schema_version",
    "default_args",
)


class Keywords(TypedDict, total=False):
    """Keywords of Fractal's function.

    Attributes:
        workflow: A document, or an object with ``name`` and ``task_list``, whose entries have ``id``,
            ``order``, ``args``, ``meta`` and ``task``.
        input_paths: Folders that the first task reads.
        output_path: Folder that tasks write to.
        input_metadata: Metadata at the start.
        input_history: History at the start.
        logger_name: Name of the logger.
        workflow_dir_local: Work directory. It may contain ``workflow.log`` and folders of tasks.
        workflow_dir_remote: None, or the same as ``workflow_dir_local``.
        slurm_user: Not used, as in Fractal's local backend.
        slurm_account: Not used.
        user_cache_dir: Not used.
        worker_init: Not used.
        first_task_index: Position of the first task; None: 0.
        last_task_index: Position of the last task, inclusive; None: the last one.
    """

    workflow: Required[Any]
    input_paths: Required[Sequence[PathLike]]
    output_path: Required[PathLike]
    input_metadata: Required[Mapping[str, Any]]
    input_history: Required[Sequence[Mapping[str, Any]]]
    logger_name: Required[str]
    workflow_dir_local: Required[PathLike]
    workflow_dir_remote: PathLike | None
    slurm_user: str | None
    slurm_account: str | None
    user_cache_dir: str | None
    worker_init: str | None
    first_task_index: int | None
    last_task_index: int | None


async def process_workflow(**keywords: Unpack[Keywords]) -> dict[str, Any]:
    """Run a workflow, as Fractal's function of this name does.

    Inputs are never modified. Log lines go to ``logging.getLogger(logger_name)``. Cancelling the
    asyncio task cancels the run.

    Args:
        **keywords: See :class:`Keywords`.

    Returns:
        ``{"metadata": ..., "history": ...}``.

    Raises:
        TaskExecutionError: A task failed by itself, or its command is no module.
        JobExecutionError: The sandbox or the host ended a task.
        RuntimeError: A component list is missing.
        DocumentsError: The documents have other problems.
        NotImplementedError: ``workflow_dir_remote`` is another folder.
        TypeError: Missing or unknown keywords.

    Example:
        >>> from mandelbox import process_workflow
        >>> async def main(workflow: dict) -> dict:
        ...     return await process_workflow(
        ...         workflow=workflow,
        ...         input_paths=["images"],
        ...         output_path="out",
        ...         input_metadata={},
        ...         input_history=[],
        ...         logger_name="job",
        ...         workflow_dir_local="job",
        ...     )
    """
    return await Job(**keywords).run()


def process_workflow_sync(**keywords: Unpack[Keywords]) -> dict[str, Any]:
    """Run a workflow like :func:`process_workflow`, on the calling thread."""
    with Job(**keywords) as job:
        pause = _PAUSE_S / 20
        while job.step():
            time.sleep(pause)
            pause = min(pause * 1.5, _PAUSE_S)
        return job.result()


class Job:
    """A run of ``process_workflow``: its process, its log lines, and where its files appear."""

    def __init__(
        self,
        *,
        workflow: Any,
        input_paths: Sequence[PathLike],
        output_path: PathLike,
        input_metadata: Mapping[str, Any],
        input_history: Sequence[Mapping[str, Any]],
        logger_name: str,
        workflow_dir_local: PathLike,
        workflow_dir_remote: PathLike | None = None,
        slurm_user: str | None = None,
        slurm_account: str | None = None,
        user_cache_dir: str | None = None,
        worker_init: str | None = None,
        first_task_index: int | None = None,
        last_task_index: int | None = None,
        environment: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Start the run.

        Args:
            environment: Variables of the program in addition to those of this process.
            options: Further options of the run.

        The other arguments are those of Fractal: see :class:`Keywords`.
        """
        work_dir, remote = workflow_dir_local, workflow_dir_remote
        if remote is not None and Path(remote) != Path(work_dir):
            raise NotImplementedError(
                "Local backend does not support different directories "
                f"workflow_dir_local={work_dir!r} and workflow_dir_remote={remote!r}"
            )
        self._document = document_of(workflow)
        self._logger = logging.getLogger(logger_name)
        self._temporary = tempfile.mkdtemp(prefix="mandelbox-")
        self._lines = _Lines(os.path.join(self._temporary, "log"))
        granted = [*input_paths, output_path]
        self._mirror = _Mirror.of(Path(work_dir), granted)
        try:
            self._run = Run(
                self._document,
                {
                    "output": output_path,
                    "input": list(input_paths),
                    "metadata": input_metadata,
                    "history": input_history,
                    "first_task": first_task_index,
                    "last_task": last_task_index,
                    "work_dir": self._mirror.source if self._mirror else work_dir,
                    **(options or {}),
                },
                has_events=False,
                words=[
                    "--prepared-work-dir",
                    "--input-in-output",
                    f"--log={self._lines.path}",
                ],
                environment=environment,
            )
        except BaseException:
            self._remove()
            raise

    async def run(self) -> dict[str, Any]:
        """Wait for the end of the run and return its result, as :meth:`result` does."""
        import asyncio

        with self:
            while self.step():
                await asyncio.sleep(_PAUSE_S)
            return self.result()

    def step(self) -> bool:
        """Log new lines and copy new files. Returns False once the run has ended."""
        is_going = not self._run.done()
        for level, text in self._lines.new():
            self._logger.log(level, "%s", text)
        if self._mirror is not None:
            self._mirror.copy(is_last=not is_going)
        return is_going

    def result(self) -> dict[str, Any]:
        """Return what Fractal's function returns, or raise what it raises."""
        try:
            result = self._run.result()
        except DocumentsError as error:
            raise self._command_error(error) or _missing_list(error) or error from None
        except TaskExecutionError as error:
            if error.calls and error.calls[0].stderr_tail.strip():
                # As in Fractal, the message is the stderr of the task.
                error.args = (error.calls[0].stderr_tail,)
            raise
        except JobExecutionError as error:
            if not error.calls:
                reason = self._run.reason
                if reason is not None and _MISSING_LIST in reason:
                    raise RuntimeError(reason) from error
            raise
        return {"metadata": result.metadata, "history": result.history}

    def _command_error(self, error: DocumentsError) -> TaskExecutionError | None:
        """Return Fractal's exception, if the command of a task is no module."""
        for problem in error.problems:
            index = _command_index(problem)
            if index is None:
                continue
            entry = self._document["task_list"][index]
            command = entry["task"].get("command")
            text = (
                f'Command "{command}" is not valid. Hint: make sure that it is executable. '
                f"({problem.message})"
            )
            return TaskExecutionError(
                text,
                workflow_task_id=entry.get("id"),
                workflow_task_order=entry.get("order"),
                task_name=entry["task"].get("name"),
            )
        return None

    def __enter__(self) -> Job:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            if not self._run.done():
                self._run._stop()
            self.step()
        finally:
            self._remove()

    def _remove(self) -> None:
        shutil.rmtree(self._temporary, ignore_errors=True)
        if self._mirror is not None:
            self._mirror.remove()


def document_of(workflow: Any) -> dict[str, Any]:
    """Return a workflow as a document. It shares nothing with the argument.

    Raises:
        MandelboxError: It is neither a document nor an object with ``name`` and ``task_list``.
    """
    if isinstance(workflow, Mapping):
        name, entries = workflow.get("name"), workflow.get("task_list")
    else:
        name, entries = getattr(workflow, "name", None), getattr(workflow, "task_list", None)
    if not isinstance(name, str) or not isinstance(entries, Iterable):
        raise MandelboxError(
            "workflow: must be a document, or an object with `name` and `task_list`, not "
            f"{type(workflow).__name__}"
        )
    return {"name": name, "task_list": [_entry(entry) for entry in entries]}


def _entry(entry: Any) -> dict[str, Any]:
    if isinstance(entry, Mapping):
        task = entry.get("task")
        document = {key: _plain(value) for key, value in entry.items() if key != "task"}
    else:
        task = getattr(entry, "task", None)
        document = _attributes(entry, _ENTRY_KEYS, exclude={"task"})
    document["task"] = (
        {key: _plain(value) for key, value in task.items()}
        if isinstance(task, Mapping)
        else _attributes(task, _TASK_KEYS)
    )
    return document


def _attributes(
    value: Any, keys: Sequence[str], exclude: set[str] | None = None
) -> dict[str, Any]:
    dump = getattr(value, "model_dump", None) or getattr(value, "dict", None)
    if dump is not None:
        facts: dict[str, Any] = dump(exclude=exclude) if exclude else dump()
    else:
        missing = object()
        found = ((key, getattr(value, key, missing)) for key in keys)
        facts = {key: item for key, item in found if item is not missing}
    return {key: _plain(item) for key, item in facts.items()}


def _plain(value: Any) -> Any:
    """Return a value of a database as JSON has it: times as text."""
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value


def _missing_list(error: DocumentsError) -> RuntimeError | None:
    """Return Fractal's exception, if a component list is missing."""
    found = (problem.message for problem in error.problems if _MISSING_LIST in problem.message)
    message = next(found, None)
    return None if message is None else RuntimeError(message)


def _command_index(problem: Problem) -> int | None:
    parts = (problem.pointer or "").split("/")
    if len(parts) >= 5 and parts[1] == "task_list" and parts[3:5] == ["task", "command"]:
        return int(parts[2])
    return None


class _Lines:
    """Lines of ``run --log``, as they are written."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._offset = 0

    def new(self) -> Iterator[tuple[int, str]]:
        """Return the lines since the last call, each with its level."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return
        whole = data.rfind(b"\n") + 1
        self._offset += whole
        for line in data[:whole].splitlines():
            facts = json.loads(line)
            level = logging.getLevelName(facts["level"])
            yield level if isinstance(level, int) else logging.INFO, facts["text"]


class _Mirror:
    """Copies the files of a run to a folder that its tasks can write to.

    The records of a run must not be in a folder that a task can access. Where the caller has chosen
    such a folder, the run has another work directory, and its files are copied as they appear. At
    its end they are copied once more, so that no task has changed them.
    """

    def __init__(self, source: Path, target: Path) -> None:
        self.source = source
        self._target = target
        self._copied: dict[str, tuple[int, int]] = {}
        self._next = 0.0

    @classmethod
    def of(cls, work_dir: Path, granted: Sequence[PathLike]) -> _Mirror | None:
        """Return a mirror if a granted folder contains the work directory, else None."""
        folders = [os.path.realpath(folder) for folder in granted]
        if not _is_in(os.path.realpath(work_dir), folders):
            return None
        for parent in (tempfile.gettempdir(), "/var/tmp", "/dev/shm", os.path.expanduser("~")):
            if os.access(parent, os.W_OK) and not _is_in(os.path.realpath(parent), folders):
                return cls(Path(tempfile.mkdtemp(prefix="mandelbox-run-", dir=parent)), work_dir)
        raise MandelboxError(
            f"{work_dir}: is in a folder that tasks can access, and so are all folders for temporary "
            "files; choose another `workflow_dir_local`"
        )

    def copy(self, *, is_last: bool) -> None:
        """Copy files that are new or have changed, at most a few times a second."""
        if not is_last and time.monotonic() < self._next:
            return
        if is_last:
            self._copied.clear()
        started = time.monotonic()
        for folder in [self.source, *_task_folders(self.source)]:
            self._copy_folder(folder)
        # Large folders take longer to look at, and are looked at less often.
        self._next = time.monotonic() + max(0.2, 10 * (time.monotonic() - started))

    def _copy_folder(self, folder: Path) -> None:
        target = self._target / folder.relative_to(self.source)
        target.mkdir(parents=True, exist_ok=True)
        for entry in os.scandir(folder):
            if not entry.is_file(follow_symlinks=False) or entry.name.startswith("."):
                continue
            if folder == self.source and entry.name == "workflow.log":
                continue
            facts = entry.stat(follow_symlinks=False)
            state = (facts.st_mtime_ns, facts.st_size)
            if self._copied.get(entry.path) != state:
                _replace(entry.path, target / entry.name)
                self._copied[entry.path] = state

    def remove(self) -> None:
        """Remove the work directory of the run."""
        shutil.rmtree(self.source, ignore_errors=True)


def _replace(source: str, target: Path) -> None:
    # A link in the place of the file is replaced and not followed.
    temporary = target.with_name(f".{target.name}.mandelbox")
    try:
        temporary.unlink(missing_ok=True)
        shutil.copyfile(source, temporary, follow_symlinks=False)
        os.replace(temporary, target)
    except FileNotFoundError:
        # The run has replaced or removed the file in the meantime.
        temporary.unlink(missing_ok=True)


def _task_folders(folder: Path) -> list[Path]:
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return []
    is_task = (entry.is_dir(follow_symlinks=False) and entry.name[:1].isdigit() for entry in entries)
    return [Path(entry.path) for entry, wanted in zip(entries, is_task) if wanted]


def _is_in(path: str, folders: Iterable[str]) -> bool:
    """Return True if one of the folders holds a path, also as a bind mount. Paths have no links."""
    above = [Path(path), *Path(path).parents]
    identities = {_identity(folder) for folder in above} - {None}
    return any(
        os.path.commonpath([path, folder]) == folder or _identity(folder) in identities
        for folder in folders
    )


def _identity(path: PathLike) -> tuple[int, int] | None:
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _list_keywords(function: Any) -> None:
    """List the keywords in the signature, for completion in notebooks and for ``help``."""
    parameters = inspect.signature(Job.__init__).parameters
    own = [parameters[name] for name in Keywords.__annotations__]
    function.__signature__ = inspect.signature(function).replace(parameters=own)


for _function in (process_workflow, process_workflow_sync):
    _list_keywords(_function)
