"""Runs of workflows."""

from __future__ import annotations

import atexit
import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _json, _program, _result
from ._events import Event, tail, tail_batches
from ._options import (
    DEFAULTS,
    Arguments,
    Options,
    PathLike,
    Progress,
    Workflow,
    absolute,
    files_folder,
    host_words,
    new_work_dir,
)
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

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from ._result import Check, Plan, Result, Status

__all__ = ["Run", "check", "load", "plan", "run", "run_async", "start", "status"]

#: Time for which the program may save its records before it is killed.
_SAVING_TIME_S = 10.0
_FIRST_PAUSE_S = 0.002
_LONGEST_PAUSE_S = 0.05
_MAX_STDERR_BYTES = 1 << 16

#: Runs of this process that have not ended, so that they are cancelled at its end.
_live: set[Run] = set()


class Run:
    """A run that :func:`start` has started. As a context manager, it is cancelled by an exception.

    Attributes:
        work_dir: Folder with the records of the run.
    """

    work_dir: Path

    def __init__(
        self,
        workflow: Workflow,
        options: Mapping[str, Any],
        *,
        progress: Progress = False,
        has_events: bool = True,
        words: list[str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._owner = os.getpid()
        self._files = files_folder()
        self._lock = threading.Lock()
        self._outcome: Result | BaseException | None = None
        #: Why a task failed as a whole, before any call; None if calls failed.
        self.reason: str | None = None
        self._is_cancelled = False
        self._is_consumed = False
        self._events_path = os.path.join(self._files, "events.jsonl") if has_events else None
        chosen = options.get("work_dir")
        self._is_new = chosen is None
        try:
            arguments = Arguments(workflow, options, self._files)
            self.work_dir = Path(absolute(chosen)) if chosen else new_work_dir(workflow)
            self._process = self._start(arguments, progress, words or [], environment)
        except BaseException:
            self._remove_files()
            raise
        _live.add(self)

    def _start(
        self,
        arguments: Arguments,
        progress: Progress,
        more: list[str],
        environment: Mapping[str, str] | None,
    ) -> subprocess.Popen[bytes]:
        words = [*arguments.words, f"--work-dir={self.work_dir}", *host_words(), *more]
        if self._is_new:
            words.append("--prepared-work-dir")
        if self._events_path is not None:
            words.append(f"--events={self._events_path}")
        shown = progress if progress is True else _has_terminal()
        shown = bool(progress) and shown
        words.append(f"--progress={'always' if progress is True else 'auto' if shown else 'never'}")
        stderr: Any = None
        if not shown:
            stderr = open(self._file("stderr"), "wb")  # noqa: SIM115
        try:
            return launch(
                ["run", *words],
                stdin=arguments.stdin,
                stdout=self._file("stdout"),
                stderr=stderr,
                folder=arguments.folder,
                environment=environment,
            )
        finally:
            if stderr is not None:
                stderr.close()

    def events(self) -> Iterator[Event]:
        """Iterate over the events of the run, in order, until it ends. Only once.

        The run does not wait for a slow reader. Leaving the loop does not end the run.

        Raises:
            MandelboxError: The events were read already, or another process started the run.

        Example:
            >>> import mandelbox
            >>> with mandelbox.start("workflow.json", output="out") as run:  # doctest: +SKIP
            ...     for event in run.events():
            ...         print(event.kind)
        """
        self._consume()
        assert self._events_path is not None
        return tail(self._events_path, self._has_ended)

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Iterate over the events like :meth:`events`, with ``async for``."""
        import asyncio

        self._consume()
        assert self._events_path is not None
        pause = _FIRST_PAUSE_S
        for batch in tail_batches(self._events_path, self._has_ended, waits=False):
            if batch is None:
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, _LONGEST_PAUSE_S)
                continue
            pause = _FIRST_PAUSE_S
            for event in batch:
                yield event

    def cancel(self) -> None:
        """Cancel the run. Running calls end, and the records are saved.

        The run ends a moment later: :meth:`result` then raises :class:`RunCancelled`. Safe to call
        several times and from any thread.

        Raises:
            MandelboxError: Another process started the run.
        """
        self._check_owner()
        with self._lock:
            if self._process.poll() is None:
                # A second signal would end the program without saving.
                if not self._is_cancelled:
                    self._process.send_signal(signal.SIGINT)
                self._is_cancelled = True

    def done(self) -> bool:
        """Return True if the run has ended.

        Raises:
            MandelboxError: Another process started the run.
        """
        self._check_owner()
        return self._has_ended()

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the end of the run and return its result.

        Args:
            timeout: Longest time to wait in seconds; None: no limit.

        Raises:
            TimeoutError: The run has not ended yet. It goes on.
            DocumentsError: Documents, options or folders are invalid; nothing was run.
            TaskExecutionError: A task failed by itself.
            JobExecutionError: The sandbox or the host ended a task.
            RunCancelled: The run was cancelled.
            HostError: mandelbox itself failed.
            MandelboxError: Another process started the run.
        """
        self._check_owner()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"the run has not ended within {timeout} s") from error
        outcome = self._finish()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def __enter__(self) -> Self:
        self._check_owner()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._stop()
        else:
            self._wait()

    def __repr__(self) -> str:
        return f"<mandelbox.Run in {self.work_dir}>"

    def _consume(self) -> None:
        self._check_owner()
        if self._events_path is None or self._is_consumed:
            raise MandelboxError("the events of a run are read once")
        self._is_consumed = True

    def _check_owner(self) -> None:
        if self._owner != os.getpid():
            text = f"the run in {self.work_dir} was started by process {self._owner}; use it there"
            raise MandelboxError(text)

    def _has_ended(self) -> bool:
        return self._process.poll() is not None

    def _wait(self) -> None:
        """Wait for the end; an interrupt cancels the run, and is raised when its records are saved."""
        try:
            self._process.wait()
        except KeyboardInterrupt:
            self._stop()
            raise

    def _stop(self) -> None:
        """Cancel the run and wait until its records are saved."""
        if self._owner != os.getpid():
            return
        self.cancel()
        try:
            self._process.wait(_SAVING_TIME_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        except KeyboardInterrupt:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_SAVING_TIME_S)
            raise
        finally:
            if self._has_ended():
                self._finish()

    def _finish(self) -> Result | BaseException:
        with self._lock:
            if self._outcome is None:
                self._outcome = self._read_outcome()
                _live.discard(self)
                # Events may still be read.
                if self._events_path is None or self._is_consumed:
                    self._remove_files_later()
            return self._outcome

    def _read_outcome(self) -> Result | BaseException:
        stdout = _read(self._file("stdout"))
        stderr = _read(self._file("stderr"))[-_MAX_STDERR_BYTES:]
        code = self._process.returncode
        answer = read_answer(stdout, stderr, code)
        if isinstance(answer, MandelboxError):
            if isinstance(answer, DocumentsError):
                self._remove_new_work_dir()
            return answer
        found = None
        try:
            found = status(self.work_dir)
        except MandelboxError:
            pass
        output = Path(answer.get("output") or self.work_dir)
        result = _result.read_result(self.work_dir, output, found)
        error = answer.get("error")
        if error is None:
            return result
        self.reason = error.get("reason")
        return error_of(error, result)

    def _remove_new_work_dir(self) -> None:
        if not self._is_new:
            return
        for folder in (self.work_dir, self.work_dir.parent):
            try:
                folder.rmdir()
            except OSError:
                return

    def _file(self, name: str) -> str:
        return os.path.join(self._files, name)

    def _remove_files(self) -> None:
        shutil.rmtree(self._files, ignore_errors=True)

    def _remove_files_later(self) -> None:
        # The reader of events has the file open, if it has read any.
        for name in os.listdir(self._files) if os.path.isdir(self._files) else ():
            if name != "events.jsonl":
                os.unlink(self._file(name))

    def __del__(self) -> None:
        if getattr(self, "_owner", 0) == os.getpid() and shutil is not None:
            self._remove_files()


def run(
    workflow: Workflow,
    *,
    progress: Progress = "auto",
    on_event: Callable[[Event], object] | None = None,
    **options: Unpack[Options],
) -> Result:
    """Run a workflow to its end, and return its result.

    Args:
        workflow: A workflow file of Fractal v1 or v2, or the document itself.
        progress: ``"auto"``: a bar in a notebook or on a terminal; True: always; False: never.
        on_event: Called with each event, on this thread. If it raises an exception, the run is
            cancelled and the exception is raised.
        **options: See :class:`mandelbox.Options`.

    Returns:
        The result; in a notebook it shows a table of the tasks.

    Raises:
        DocumentsError: Documents, options or folders are invalid; nothing was run.
        TaskExecutionError: A task failed by itself.
        JobExecutionError: The sandbox or the host ended a task.
        HostError: mandelbox itself failed.
        KeyboardInterrupt: The user pressed Ctrl-C. The records were saved: ``resume=True``
            continues the run.

    Example:
        >>> import mandelbox
        >>> result = mandelbox.run(  # doctest: +SKIP
        ...     "workflow.json", input="images", output="results", jobs=4, memory="2GiB"
        ... )
    """
    bar = _notebook_bar(progress)
    has_events = on_event is not None or bar is not None
    going = Run(
        workflow, options, progress=False if bar else progress, has_events=has_events
    )
    try:
        if has_events:
            for event in going.events():
                if bar is not None:
                    bar.update(event)
                if on_event is not None:
                    on_event(event)
        return going.result()
    except (TaskExecutionError, JobExecutionError, DocumentsError, RunCancelled, HostError):
        if not going.done():
            going._stop()
        raise
    except BaseException:
        going._stop()
        raise
    finally:
        if bar is not None:
            bar.close()


def start(
    workflow: Workflow,
    *,
    progress: Progress = False,
    **options: Unpack[Options],
) -> Run:
    """Start a run and return at once.

    Args:
        workflow: As for :func:`run`.
        progress: As for :func:`run`; a bar appears on a terminal only.
        **options: See :class:`mandelbox.Options`.

    Raises:
        DocumentsError: An option has the wrong type. Other problems are raised by
            :meth:`Run.result`.
        HostError: The program cannot be started.

    Example:
        >>> import mandelbox
        >>> with mandelbox.start("workflow.json", output="out") as run:  # doctest: +SKIP
        ...     result = run.result(timeout=3600)
    """
    return Run(workflow, options, progress=progress)


async def run_async(
    workflow: Workflow,
    *,
    progress: Progress = False,
    on_event: Callable[[Event], object] | None = None,
    **options: Unpack[Options],
) -> Result:
    """Run a workflow like :func:`run` in an asyncio program.

    Cancelling the asyncio task cancels the run and waits until its records are saved.

    Args:
        workflow: As for :func:`run`.
        progress: As for :func:`run`.
        on_event: As for :func:`run`; called on the thread of the event loop.
        **options: See :class:`mandelbox.Options`.

    Raises:
        asyncio.CancelledError: The task was cancelled.
        DocumentsError: As for :func:`run`, and so are the other exceptions.

    Example:
        >>> import asyncio, mandelbox
        >>> async def both():
        ...     runs = (mandelbox.run_async("w.json", output=f"out{i}") for i in range(2))
        ...     return await asyncio.gather(*runs)
    """
    bar = _notebook_bar(progress)
    has_events = on_event is not None or bar is not None
    going = Run(
        workflow, options, progress=False if bar else progress, has_events=has_events
    )
    try:
        if has_events:
            async for event in going:
                if bar is not None:
                    bar.update(event)
                if on_event is not None:
                    on_event(event)
        await _ended(going)
    except BaseException:
        await _stopped(going)
        raise
    finally:
        if bar is not None:
            bar.close()
    return going.result()


async def _ended(going: Run) -> None:
    import asyncio

    pause = _FIRST_PAUSE_S
    while not going._has_ended():
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_S)


async def _stopped(going: Run) -> None:
    """Cancel a run and wait for its records, without blocking the event loop."""
    going.cancel()
    last = time.monotonic() + _SAVING_TIME_S
    import asyncio

    while not going._has_ended() and time.monotonic() < last:
        await asyncio.sleep(_LONGEST_PAUSE_S / 5)
    if not going._has_ended():
        going._process.kill()
    going._process.wait()
    going._finish()


def plan(workflow: Workflow, **options: Unpack[Options]) -> Plan:
    """Check a workflow, its documents, modules and folders. Nothing is run or written.

    Args:
        workflow: As for :func:`run`.
        **options: See :class:`mandelbox.Options`.

    Raises:
        DocumentsError: Every problem.
        HostError: mandelbox itself failed.

    Example:
        >>> import mandelbox
        >>> plan = mandelbox.plan("workflow.json", output="out")  # doctest: +SKIP
        >>> [task.calls for task in plan.tasks]  # doctest: +SKIP
    """
    files = files_folder()
    try:
        arguments = Arguments(workflow, options, files)
        words = ["run", *arguments.words, "--dry-run", "--format=json", "--progress=never"]
        if options.get("work_dir") is not None:
            words.append(f"--work-dir={absolute(options['work_dir'] or '')}")
        facts = answer_of(words, stdin=arguments.stdin, folder=arguments.folder)
    finally:
        shutil.rmtree(files, ignore_errors=True)
    return _result.Plan.from_facts(facts)


def load(path: PathLike) -> dict[str, Any]:
    """Read a document, such as a workflow, to change and run it. Its numbers keep their digits.

    Args:
        path: A JSON file with an object.

    Raises:
        DocumentsError: The file cannot be read, or contains no JSON object.

    Example:
        >>> import mandelbox
        >>> workflow = mandelbox.load("workflow.json")  # doctest: +SKIP
        >>> workflow["task_list"][0]["args"]["size"] = 3  # doctest: +SKIP
    """
    file = os.fsdecode(os.fspath(path))
    try:
        with open(file, "rb") as opened:
            document = _json.loads(opened.read())
    except json.JSONDecodeError as error:
        location = f"{file}:{error.lineno}:{error.colno}"
        problem = Problem(error.msg, location, file, line=error.lineno, column=error.colno)
        raise DocumentsError([problem]) from error
    except (OSError, UnicodeDecodeError) as error:
        problem = Problem(f"cannot be read: {error}", file, file)
        raise DocumentsError([problem]) from error
    if not isinstance(document, dict):
        text = f"must contain a JSON object, not {type(document).__name__}"
        raise DocumentsError([Problem(text, file, file, pointer="")])
    return document


def check(
    path: PathLike,
    *,
    policy: PathLike | None = None,
    python: PathLike | None = None,
    tasks: PathLike | list[PathLike] = (),  # type: ignore[assignment]
) -> Check:
    """Check a workflow, a module, a task package or a dataset.

    Args:
        path: File or folder.
        policy: Policy file.
        python: Environment whose interpreter runs scripts.
        tasks: Task packages for a workflow.

    Returns:
        The findings; ``ok`` is False if there are problems.

    Raises:
        HostError: mandelbox itself failed.

    Example:
        >>> import mandelbox
        >>> mandelbox.check("task.wasm").facts["module"]["kind"]  # doctest: +SKIP
    """
    words = ["check", absolute(path), "--format=json"]
    if policy is not None:
        words.append(f"--policy={absolute(policy)}")
    if python is not None:
        words.append(f"--python={absolute(python)}")
    for package in [tasks] if isinstance(tasks, (str, os.PathLike)) else tasks:
        words.append(f"--tasks={absolute(package)}")
    done = _capture(words)
    try:
        return _result.Check.from_facts(_json.loads(done.stdout))
    except (ValueError, KeyError):
        raise unexpected(done.stdout, done.stderr, done.returncode) from None


def status(work_dir: PathLike) -> Status:
    """Return the state of a run that goes on elsewhere, has ended or was killed.

    Args:
        work_dir: Work directory of the run.

    Raises:
        DocumentsError: The folder contains no run.
        HostError: mandelbox itself failed.

    Example:
        >>> import mandelbox
        >>> mandelbox.status("mandelbox-runs/nuclei_20270101_120000").state  # doctest: +SKIP
        'done'
    """
    done = _capture(["status", absolute(work_dir), "--format=json"])
    if done.returncode == 0:
        return _result.Status.from_facts(_json.loads(done.stdout))
    raise unexpected(done.stdout, done.stderr, done.returncode)


def launch(
    words: list[str],
    *,
    stdin: bytes | None,
    stdout: Any,
    stderr: Any,
    folder: str | None = None,
    environment: Mapping[str, str] | None = None,
    pipe: bool = False,
) -> subprocess.Popen[bytes]:
    """Start the program in a session of its own, so that a terminal's Ctrl-C reaches Python only.

    Args:
        words: Arguments.
        stdin: Bytes for stdin, or None.
        stdout: Path of a new file, or what ``subprocess`` takes.
        stderr: What ``subprocess`` takes.
        folder: Folder to start it in, or None.
        environment: Variables in addition to those of this process.
        pipe: True to have stdin as a pipe.
    """
    given: Any = subprocess.PIPE if pipe else subprocess.DEVNULL
    opened = None
    if stdin is not None:
        # A file and not a pipe: nobody has to write it while the program runs.
        import tempfile

        given = tempfile.TemporaryFile()  # noqa: SIM115
        given.write(stdin)
        given.seek(0)
    if isinstance(stdout, str):
        stdout = opened = open(stdout, "wb")  # noqa: SIM115
    program = _program.path()
    try:
        return subprocess.Popen(
            [program, *words],
            stdin=given,
            stdout=stdout,
            stderr=stderr,
            cwd=folder,
            env={**os.environ, **environment} if environment else None,
            start_new_session=True,
        )
    except OSError as error:
        text = f"failed to start {program}: {error.strerror}"
        raise HostError(text, error.errno, program) from error
    finally:
        for file in (given, opened):
            if file is not None and not isinstance(file, int):
                file.close()


def answer_of(
    words: list[str], *, stdin: bytes | None = None, folder: str | None = None
) -> dict[str, Any]:
    """Run the program to its end and return its JSON answer.

    Raises:
        DocumentsError: The input has problems.
        HostError: mandelbox itself failed.
    """
    done = _capture(words, stdin=stdin, folder=folder)
    answer = read_answer(done.stdout, done.stderr, done.returncode)
    if isinstance(answer, MandelboxError):
        raise answer
    return answer


def _capture(
    words: list[str], *, stdin: bytes | None = None, folder: str | None = None
) -> subprocess.CompletedProcess[bytes]:
    program = _program.path()
    given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    try:
        return subprocess.run(
            [program, *words], capture_output=True, cwd=folder, check=False, **given
        )
    except OSError as error:
        text = f"failed to start {program}: {error.strerror}"
        raise HostError(text, error.errno, program) from error


def read_answer(stdout: bytes, stderr: bytes, code: int) -> dict[str, Any] | MandelboxError:
    """Read the answer of ``run --format json``; an exception if nothing was run."""
    try:
        answer: dict[str, Any] = _json.loads(stdout)
        assert isinstance(answer, dict)
    except (ValueError, AssertionError):
        return unexpected(stdout, stderr, code)
    if "problems" in answer:
        return DocumentsError(_result.problems_of(answer["problems"]))
    error = answer.get("error")
    if error is not None and error["kind"] == "HostError":
        return HostError(error["message"], error.get("errno"), error.get("path"))
    return answer


def unexpected(stdout: bytes, stderr: bytes, code: int) -> MandelboxError:
    """Return the exception for a program that ended without a JSON answer."""
    text = (stderr or stdout).decode(errors="replace").strip()
    if code == 2:
        return DocumentsError([Problem(text.removeprefix("error: "))])
    if code < 0:
        name = signal.Signals(-code).name if -code in list(signal.Signals) else str(-code)
        text = f"the program was ended by {name}. {text}".strip()
    return HostError(text or f"the program ended with code {code} and no message")


def error_of(error: Mapping[str, Any], result: Result | None) -> MandelboxError:
    """Return the exception for the ``error`` of an answer."""
    message = error["message"]
    calls = [
        CallError(
            component=call["item"],
            outcome=call["outcome"],
            message=call["message"],
            exit_code=call.get("exit_code"),
            stderr_tail=call["stderr"],
            stderr_path=call["stderr_path"],
        )
        for call in error.get("calls", ())
    ]
    task = error.get("task") or {}
    facts: dict[str, Any] = {
        "workflow_task_id": task.get("id"),
        "workflow_task_order": task.get("order"),
        "task_name": task.get("name"),
        "calls": calls,
        "result": result,
    }
    if error["kind"] == "TaskExecutionError":
        return TaskExecutionError(message, **facts)
    if error["kind"] == "JobExecutionError":
        stderr = calls[0].stderr_path if calls else None
        stdout = stderr[: -len(".err")] + ".out" if stderr and stderr.endswith(".err") else None
        return JobExecutionError(
            message,
            info=message,
            stderr_file=stderr,
            stdout_file=stdout if stdout and os.path.isfile(stdout) else None,
            **facts,
        )
    if error["kind"] == "cancelled":
        return RunCancelled(message, result=result)
    return MandelboxError(message)


def _notebook_bar(progress: Progress) -> Any:
    if not progress or (progress == "auto" and "ipykernel" not in sys.modules):
        return None
    try:
        from ._progress import Bar

        return Bar()
    except ImportError:
        return None


def _has_terminal() -> bool:
    # The program writes to descriptor 2, which Python's stderr need not be.
    try:
        return sys.stderr.fileno() == 2 and os.isatty(2)
    except (AttributeError, OSError, ValueError):
        return False


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _at_exit() -> None:
    """Cancel the runs that this process has not waited for, and wait for their records."""
    own = [going for going in _live if going._owner == os.getpid()]
    for going in own:
        going.cancel()
    for going in own:
        going._stop()


def _after_fork() -> None:
    _live.clear()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork)


def _list_options(function: Any) -> None:
    """List the options in the signature, for completion in notebooks and for ``help``."""
    signature = inspect.signature(function)
    own = [value for value in signature.parameters.values() if value.kind != value.VAR_KEYWORD]
    for name, default in DEFAULTS.items():
        annotation = Options.__annotations__[name]
        annotation = getattr(annotation, "__forward_arg__", annotation)
        kind = inspect.Parameter.KEYWORD_ONLY
        own.append(inspect.Parameter(name, kind, default=default, annotation=annotation))
    function.__signature__ = signature.replace(parameters=own)


for _function in (run, start, run_async, plan):
    _list_options(_function)
