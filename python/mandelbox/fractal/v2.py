"""The local backend of fractal-server 2.24 to 2.26: commands that end in ``.wasm`` run in the sandbox."""

from __future__ import annotations

import json
import os
import shlex
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fractal_server.app.db import get_sync_db
from fractal_server.app.models import UserOAuth
from fractal_server.app.schemas.v2 import HistoryUnitStatus, TaskType
from fractal_server.runner.exceptions import TaskExecutionError as FractalTaskError
from fractal_server.runner.executors.local import runner as local
from fractal_server.runner.v2 import _local as backend
from fractal_server.runner.v2.db_tools import update_history_unit_no_commit

from .._batch import Batch, CallResult
from ..errors import MandelboxError
from . import expect_parameters, options

_RUN_PARAMETERS = {"base_command", "parameters", "task_files", "user_cache_dir"}
_MULTISUBMIT_PARAMETERS = {
    "self",
    "base_command",
    "workflow_task_order",
    "workflow_task_id",
    "task_name",
    "list_parameters",
    "history_unit_ids",
    "list_task_files",
    "task_type",
    "config",
    "user_id",
}
#: Statuses of images are written to the database this many at a time.
_UNITS_AT_A_TIME = 100
#: Processes that are kept open for further calls.
_MAX_OPEN = 8
#: Length of the log in an exception, as in fractal-server.
_MAX_LOG_CHARS = 100_000

_original: tuple[Any, Any, Any] | None = None


@dataclass(frozen=True)
class Rights:
    """Folders that the tasks of a job can access.

    Attributes:
        zarr_dir: Folder of the dataset, which tasks can write to, or None.
        read: Folders that tasks can read.
    """

    zarr_dir: str | None
    read: tuple[str, ...]


#: Rights of the jobs of this process, by their work directories.
_rights: dict[str, Rights] = {}
#: Rights of a call that belongs to no job: its own scratch folder.
_NO_RIGHTS = Rights(None, ())


class MandelboxRunner(local.LocalRunner):  # type: ignore[misc]
    """Runs commands that end in ``.wasm`` in the sandbox, and all others as LocalRunner does."""

    def multisubmit(self, *, base_command: str, **rest: Any) -> Any:
        """Run a task for many images or items, through one process."""
        if not is_module(base_command):
            return super().multisubmit(base_command=base_command, **rest)
        return self._multisubmit(base_command=base_command, **rest)

    def _multisubmit(
        self,
        *,
        base_command: str,
        list_parameters: list[dict[str, Any]],
        history_unit_ids: list[int],
        list_task_files: list[Any],
        task_type: Any,
        config: Any,
        **_: Any,
    ) -> tuple[dict[int, Any], dict[int, BaseException]]:
        results: dict[int, Any] = {}
        exceptions: dict[int, BaseException] = {}
        units = _Units(history_unit_ids if task_type == TaskType.PARALLEL else [])
        try:
            self.validate_multisubmit_parameters(
                list_parameters=list_parameters,
                task_type=task_type,
                list_task_files=list_task_files,
                history_unit_ids=history_unit_ids,
            )
            list_task_files[0].wftask_subfolder_local.mkdir(exist_ok=True)
            for parameters, files in zip(list_parameters, list_task_files):
                _write_args(parameters, files)
            rights = _rights_of(list_task_files[0])
            with _batch(base_command, rights, _jobs_of(config)) as batch:
                for index, result in enumerate(batch.map(list_parameters)):
                    try:
                        results[index] = _take(result, list_task_files[index])
                        units.set(index, HistoryUnitStatus.DONE)
                    except FractalTaskError as error:
                        exceptions[index] = error
                        units.set(index, HistoryUnitStatus.FAILED)
        except Exception as error:  # As LocalRunner: the job fails, the server goes on.
            for index in range(len(list_parameters)):
                if index not in results and index not in exceptions:
                    exceptions[index] = FractalTaskError(str(error))
                    units.set(index, HistoryUnitStatus.FAILED)
        units.flush()
        return results, exceptions


def is_module(command: str) -> bool:
    """Return True if the first word of a command is the path of a module."""
    try:
        words = shlex.split(command)
    except ValueError:
        return False
    return bool(words) and words[0].endswith(".wasm")


def run_single_task(
    *, base_command: str, parameters: dict[str, Any], task_files: Any, user_cache_dir: str
) -> Any:
    """Run one call, in the sandbox if its command is a module."""
    if not is_module(base_command):
        assert _original is not None
        return _original[0](
            base_command=base_command,
            parameters=parameters,
            task_files=task_files,
            user_cache_dir=user_cache_dir,
        )
    _write_args(parameters, task_files)
    try:
        with _batch(base_command, _rights_of(task_files), None) as batch:
            result = batch.call(parameters)
    except MandelboxError as error:
        raise FractalTaskError(str(error)) from error
    return _take(result, task_files)


def execute_tasks(*, dataset: Any, runner: Any, user_id: int, **rest: Any) -> Any:
    """Run the tasks of a job, with the rights of its dataset and its user."""
    assert _original is not None
    folder = str(runner.root_dir_local)
    _rights[folder] = Rights(str(dataset.zarr_dir), _project_dirs(user_id))
    try:
        return _original[2](dataset=dataset, runner=runner, user_id=user_id, **rest)
    finally:
        _rights.pop(folder, None)
        _close_unused()


class _Units:
    """Statuses of the images of a task in the database."""

    def __init__(self, ids: list[int]) -> None:
        self._ids = ids
        self._waiting: list[tuple[int, Any]] = []

    def set(self, index: int, status: Any) -> None:
        if self._ids:
            self._waiting.append((self._ids[index], status))
            if len(self._waiting) >= _UNITS_AT_A_TIME:
                self.flush()

    def flush(self) -> None:
        if not self._waiting:
            return
        with next(get_sync_db()) as db:
            for unit, status in self._waiting:
                update_history_unit_no_commit(history_unit_id=unit, status=status, db_sync=db)
            db.commit()
        self._waiting.clear()


_open_batches: OrderedDict[tuple[Any, ...], Batch] = OrderedDict()
_lock = threading.Lock()


@contextmanager
def _batch(command: str, rights: Rights, n_jobs: int | None) -> Iterator[Batch]:
    """Yield a process for a command. Those of a job stay open until it ends."""
    module, *fixed = shlex.split(command)
    found = options()
    if n_jobs is not None:
        found["jobs"] = min(n_jobs, found.get("jobs") or n_jobs)
    if rights.zarr_dir is not None:
        # It can only be granted if it exists. Not earlier: other tasks create it themselves.
        os.makedirs(rights.zarr_dir, exist_ok=True)
    read = [folder for folder in rights.read if os.path.isdir(folder)]
    batch = Batch(
        module, contract="v2", output=rights.zarr_dir, read=read, fixed_args=fixed, **found
    )
    if rights is _NO_RIGHTS:
        with batch:
            yield batch
        return
    setup = (module, tuple(fixed), tuple(read), tuple(sorted(found.items())))
    key = (rights, setup, os.getpid(), _state(module))
    with _lock:
        batch = _open_batches.pop(key, batch)
        _open_batches[key] = batch
        if len(_open_batches) > _MAX_OPEN:
            # Its process ends when nobody uses it any more.
            _open_batches.popitem(last=False)
    yield batch


def _close_unused() -> None:
    """End the processes with rights that no job has."""
    used = set(_rights.values())
    with _lock:
        unused = [key for key in _open_batches if key[0] not in used]
        batches = [_open_batches.pop(key) for key in unused]
    for batch in batches:
        batch.close()


def _state(module: str) -> tuple[int, ...]:
    try:
        facts = os.stat(module)
    except OSError:
        return ()
    return (facts.st_ino, facts.st_size, facts.st_mtime_ns)


def _rights_of(files: Any) -> Rights:
    """Return the rights of a job. Args give none."""
    return _rights.get(str(files.root_dir_local), _NO_RIGHTS)


def _project_dirs(user_id: int) -> tuple[str, ...]:
    with next(get_sync_db()) as db:
        user = db.get(UserOAuth, user_id)
        return tuple(str(folder) for folder in (getattr(user, "project_dirs", None) or ()))


def _jobs_of(config: Any) -> int | None:
    found: int | None = getattr(config, "parallel_tasks_per_job", None)
    return found


def _write_args(parameters: dict[str, Any], files: Any) -> None:
    Path(files.args_file_local).write_text(json.dumps(parameters))


def _take(result: CallResult, files: Any) -> Any:
    """Write the files of a call that has ended, and return its output.

    Raises:
        TaskExecutionError: The call failed.
    """
    log = result.stdout + result.stderr
    if not result.ok and result.message and result.outcome != "exited":
        log = f"{log.rstrip()}\n{result.message}\n".lstrip()
    Path(files.log_file_local).write_text(log)
    if not result.ok:
        code = "" if result.exit_code is None else f" with returncode={result.exit_code}"
        raise FractalTaskError(f"Task failed{code}.\nSTDERR: {log[-_MAX_LOG_CHARS:]}")
    if result.output is not None:
        Path(files.metadiff_file_local).write_text(json.dumps(result.output))
    return result.output


def install() -> None:
    """Replace the local backend."""
    global _original
    if _original is not None:
        return
    expect_parameters(local.run_single_task, _RUN_PARAMETERS, "run_single_task")
    expect_parameters(local.LocalRunner.multisubmit, _MULTISUBMIT_PARAMETERS, "multisubmit")
    for name in ("LocalRunner", "execute_tasks"):
        if not hasattr(backend, name):
            raise MandelboxError(f"fractal-server has no {backend.__name__}.{name}")
    _original = (local.run_single_task, backend.LocalRunner, backend.execute_tasks)
    local.run_single_task = run_single_task
    backend.LocalRunner = MandelboxRunner
    backend.execute_tasks = execute_tasks


def uninstall() -> None:
    """Restore the local backend."""
    global _original
    if _original is not None:
        local.run_single_task, backend.LocalRunner, backend.execute_tasks = _original
        _original = None
