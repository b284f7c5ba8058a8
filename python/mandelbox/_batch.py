"""Many calls of one module through one process of ``mandelbox batch`` that stays open."""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
import weakref
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict

from . import _json, _share
from ._options import DEFAULTS, PathLike, absolute, limit_words
from ._run import check, launch, unexpected
from .errors import (
    CallError,
    DocumentsError,
    HostError,
    JobExecutionError,
    MandelboxError,
    Problem,
    TaskExecutionError,
)

if TYPE_CHECKING:
    from datetime import timedelta
    from types import TracebackType

    from typing_extensions import Self, Unpack

__all__ = ["Batch", "BatchOptions", "CallResult", "Task", "batch", "map"]

#: Calls that are sent before the first of them has ended.
_WINDOW = 2048
#: Bytes of calls that are collected before they are sent, and the longest time for it.
_CHUNK_BYTES = 1 << 15
_CHUNK_TIME_S = 0.005
_READ_BYTES = 1 << 17
#: Size of the pipes to and from the process, where the system allows it: the process goes on while
#: Python is busy with results.
_PIPE_BYTES = 1 << 20
#: Processes for :func:`map` and :class:`Task` that are kept open.
_MAX_SHARED = 8
#: Time for which running calls may end when a batch is closed by an exception.
_END_TIME_S = 10.0
_MAX_STDERR_BYTES = 1 << 16
#: Outcomes that the task itself is responsible for.
_BY_TASK = ("exited", "failed", "bad_output")
_INDEX = b'{"index":'

_open_batches: weakref.WeakSet[Batch] = weakref.WeakSet()


class BatchOptions(TypedDict, total=False):
    """Options of :func:`batch` and :func:`map`.

    Attributes:
        contract: Form of the calls: ``"v1"``, ``"v2"``, ``"typed"`` or ``"argv"``; default: that of
            the module and the first call.
        input: Folders that all calls can read, in Fractal v1 for ``input_paths``.
        output: Folder that all calls can write to, for ``output_path`` or ``zarr_dir``.
        read: Further folders that all calls can read.
        jobs: Calls that run at a time; default: the number of CPUs.
        memory: Memory limit of a call: bytes, or text such as ``"2GiB"``.
        timeout: Time limit of a call: seconds, text such as ``"10m"``, or a timedelta.
        policy: Policy file (TOML).
        python: Environment whose interpreter runs the module, which is then a script.
        isolation: ``"process"`` (default) or ``"thread"``.
        deterministic: True for fixed clocks and random numbers.
        cache: False to compile the module from scratch.
        fixed_args: Arguments of a command before those of each call.
    """

    contract: Literal["v1", "v2", "typed", "argv"] | None
    input: PathLike | Sequence[PathLike]
    output: PathLike | None
    read: PathLike | Sequence[PathLike]
    jobs: int | None
    memory: int | str | None
    timeout: float | str | timedelta | None
    policy: PathLike | None
    python: PathLike | None
    isolation: Literal["process", "thread"]
    deterministic: bool
    cache: bool
    fixed_args: Sequence[str]


_DEFAULTS: dict[str, Any] = {
    "contract": None,
    "input": (),
    "output": None,
    "read": (),
    "fixed_args": (),
    **{
        key: value
        for key, value in DEFAULTS.items()
        if key
        in (
            "jobs",
            "memory",
            "timeout",
            "policy",
            "python",
            "isolation",
            "deterministic",
            "cache",
        )
    },
}


@dataclass(frozen=True)
class CallResult:
    """Result of one call, whether it succeeded or failed.

    Attributes:
        index: Position of the call among those of its :meth:`Batch.map`, from 0.
        item: Name of its item, or None.
        outcome: ``succeeded``, or why it failed, as in ``events.jsonl``.
        exit_code: Exit code of the task; None if it did not exit by itself.
        output: Output of a task (its metadiff), or None.
        stdout: Standard output, whole up to 64 KiB, else its last 64 KiB.
        stderr: Standard error, likewise.
        wall_time_s: Wall time in seconds.
        peak_memory_bytes: Peak memory in bytes.
        message: Description of a failure, or None.
    """

    index: int
    item: Any
    outcome: str
    exit_code: int | None
    output: dict[str, Any] | None
    stdout: str
    stderr: str
    wall_time_s: float
    peak_memory_bytes: int
    message: str | None = None

    @property
    def ok(self) -> bool:
        """True if the call succeeded."""
        return self.outcome == "succeeded"

    def value(self) -> dict[str, Any] | None:
        """Return the output.

        Raises:
            TaskExecutionError: The task failed by itself.
            JobExecutionError: The sandbox or the host ended the call.
        """
        if self.ok:
            return self.output
        message = self.message or self.outcome
        call = CallError(
            component=self.item,
            outcome=self.outcome,
            message=message,
            exit_code=self.exit_code,
            stderr_tail=self.stderr,
            stderr_path=None,
        )
        text = f"{message}\n{self.stderr}".rstrip()
        if self.outcome in _BY_TASK:
            raise TaskExecutionError(text, calls=[call])
        raise JobExecutionError(text, info=text, calls=[call])


def _result(line: bytes) -> CallResult:
    facts: dict[str, Any] = json.loads(line)
    return _result_of(facts)


def _result_of(facts: dict[str, Any]) -> CallResult:
    """Return the facts of a line as a result, which takes the dict over.

    The fields of a frozen class are set one by one otherwise, which takes longer than reading the
    line.
    """
    facts.pop("id", None)
    result = object.__new__(CallResult)
    object.__setattr__(result, "__dict__", facts)
    return result


class Batch:
    """One module, ready for many calls. Use it as a context manager, or call :meth:`close`.

    All methods can be called from several threads. After a fork, the child process has a process of
    its own.

    Example:
        >>> import mandelbox
        >>> with mandelbox.batch("task.wasm", output="masks") as batch:  # doctest: +SKIP
        ...     for result in batch.map({"component": name} for name in ["a", "b"]):
        ...         print(result.output)
    """

    def __init__(self, module: PathLike, **options: Unpack[BatchOptions]) -> None:
        """Prepare calls. The process starts with the first call.

        Args:
            module: The module (.wasm).
            **options: See :class:`BatchOptions`.

        Raises:
            TypeError: Unknown options.
        """
        unknown = sorted(set(options) - set(_DEFAULTS))
        if unknown:
            raise TypeError(f"unknown option `{unknown[0]}`")
        self.module = absolute(module)
        self._options = {**_DEFAULTS, **options}
        #: Further options of the program.
        self._more: list[str] = []
        self._lock = threading.Lock()
        self._connection: _Connection | None = None
        self._is_closed = False
        _open_batches.add(self)

    def call(
        self,
        args: Mapping[str, Any] | None = None,
        *,
        argv: Sequence[str] | None = None,
        stdin: str | None = None,
        item: Any = None,
        timeout: float | None = None,
    ) -> CallResult:
        """Make one call and wait for its result.

        Args:
            args: Arguments of a task.
            argv: Command line of a command, without its name.
            stdin: Text for the stdin of a command.
            item: Name of the item, which the result repeats.
            timeout: Longest time to wait in seconds. The call goes on afterwards.

        Raises:
            TimeoutError: The call has not ended yet.
            DocumentsError: Arguments that JSON does not have; a module or options that cannot be
                used.
            HostError: mandelbox itself failed.
        """
        request: dict[str, Any] = {}
        if args is not None:
            request["args"] = args
        if argv is not None:
            request["argv"] = argv
        if stdin is not None:
            request["stdin"] = stdin
        if item is not None:
            request["item"] = item
        sink = _Sink()
        self._connect().send([_json.dumps(request, "call")], sink)
        line = sink.take(timeout)
        if line is None:
            raise TimeoutError(f"the call has not ended within {timeout} s")
        return _result(line)

    def map(
        self,
        items: Iterable[Mapping[str, Any] | Sequence[str]],
        *,
        ordered: bool = True,
    ) -> Iterator[CallResult]:
        """Make a call for each item, and iterate over the results.

        Items are taken as calls end, at most 2,048 ahead of the results. Failed calls have results
        too: see :attr:`CallResult.ok` and :meth:`CallResult.value`.

        Args:
            items: For each call its args, or its command line (a list of strings).
            ordered: True for the order of the items, False for the order in which calls end.

        Raises:
            DocumentsError: As for :meth:`call`.
            HostError: As for :meth:`call`.
        """
        window = _Window(self._connect(), items)
        return _in_order(window) if ordered else _as_they_end(window)

    def close(self) -> None:
        """End the process after the calls that run. Later calls are an error."""
        with self._lock:
            self._is_closed = True
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None and self._connection is not None:
            self._connection.terminate()
        self.close()

    def __del__(self) -> None:
        connection = getattr(self, "_connection", None)
        if connection is not None and connection.owner == os.getpid():
            connection.hang_up()

    def _connect(self) -> _Connection:
        with self._lock:
            if self._is_closed:
                raise MandelboxError("the batch is closed")
            if self._connection is None or self._connection.has_ended:
                # Not earlier: the arguments name this process, which a fork changes.
                self._connection = _Connection(
                    _words(self.module, self._options, self._more)
                )
            return self._connection

    def _drop_after_fork(self) -> None:
        self._lock = threading.Lock()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.drop_after_fork()


class _Window:
    """The calls of one :meth:`Batch.map` that were sent and whose results were not returned."""

    def __init__(
        self, connection: _Connection, items: Iterable[Mapping[str, Any] | Sequence[str]]
    ) -> None:
        self.n_given = 0
        self._connection = connection
        self._sink = _Sink()
        self._lines = _lines(items)
        self._is_exhausted = False
        self._n_sent = 0
        #: Calls that were sent without those of others between them: the first index in the
        #: process, and by how much the indices there are higher than the positions.
        self._firsts: list[int] = []
        self._shifts: list[int] = []

    def refill(self) -> bool:
        """Send more calls if half of the window is free. Returns False once all results were given.

        Half of the window at a time, so that many calls are sent at once.
        """
        if self._has_room():
            n_most = _WINDOW - (self._n_sent - self.n_given)
            chunk, self._is_exhausted = _take(self._lines, n_most)
            if chunk:
                first = self._connection.send(chunk, self._sink)
                shift = first - self._n_sent
                if not self._shifts or self._shifts[-1] != shift:
                    self._firsts.append(first)
                    self._shifts.append(shift)
                self._n_sent += len(chunk)
        return not self._is_exhausted or self.n_given < self._n_sent

    def receive(self) -> list[dict[str, Any]]:
        """Return the facts of the results that are there. Waits for one if no call can be sent."""
        lines = self._sink.take_all(0.0 if self._has_room() else None)
        found: list[dict[str, Any]] = json.loads(b"[" + b",".join(lines) + b"]")
        shifts = self._shifts
        if len(shifts) == 1:
            shift = shifts[0]
            if shift:
                for facts in found:
                    facts["index"] -= shift
            return found
        for facts in found:
            facts["index"] -= shifts[bisect_right(self._firsts, facts["index"]) - 1]
        return found

    def _has_room(self) -> bool:
        return not self._is_exhausted and self._n_sent - self.n_given <= _WINDOW // 2


def _as_they_end(window: _Window) -> Iterator[CallResult]:
    while window.refill():
        for facts in window.receive():
            window.n_given += 1
            yield _result_of(facts)


def _in_order(window: _Window) -> Iterator[CallResult]:
    waiting: dict[int, dict[str, Any]] = {}
    while window.refill():
        for facts in window.receive():
            waiting[facts["index"]] = facts
        while window.n_given in waiting:
            facts = waiting.pop(window.n_given)
            window.n_given += 1
            yield _result_of(facts)


class _Receiver(Protocol):
    """Receives the lines of the results of its calls, on the thread that reads them."""

    def put(self, lines: list[bytes], /) -> None:
        """Take lines, each of one result."""

    def fail(self, error: MandelboxError, /) -> None:
        """Take the error after which no result comes."""


class _Sink:
    """Receives the lines of results for one caller, which waits for them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._error: MandelboxError | None = None

    def put(self, lines: list[bytes]) -> None:
        with self._changed:
            self._lines.extend(lines)
            self._changed.notify()

    def fail(self, error: MandelboxError) -> None:
        with self._changed:
            self._error = error
            self._changed.notify()

    def take(self, timeout: float | None) -> bytes | None:
        """Return one line, or None after the timeout."""
        with self._changed:
            self._changed.wait_for(self._is_ready, timeout)
            if self._lines:
                return self._lines.popleft()
            if self._error is not None:
                raise self._error
            return None

    def take_all(self, timeout: float | None) -> list[bytes]:
        """Return all lines that are there, and wait if there is none."""
        with self._changed:
            self._changed.wait_for(self._is_ready, timeout)
            lines = list(self._lines)
            self._lines.clear()
            if not lines and self._error is not None:
                raise self._error
            return lines

    def _is_ready(self) -> bool:
        return bool(self._lines) or self._error is not None


class _Connection:
    """A process of ``mandelbox batch``. A thread reads its results, so that it never waits for us."""

    def __init__(self, words: list[str]) -> None:
        self.owner = os.getpid()
        self.has_ended = False
        self._error: MandelboxError | None = None
        self._send_lock = threading.Lock()
        self._n_sent = 0
        self._is_closed = False
        self._routes = _Routes()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = launch(words, stdin=None, stdout=subprocess.PIPE, stderr=self._stderr, pipe=True)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stdin = self._process.stdin.fileno()
        self._stdout = self._process.stdout.fileno()
        for pipe in (self._stdin, self._stdout):
            _enlarge(pipe)
        threading.Thread(target=self._read, name="mandelbox-batch", daemon=True).start()

    def send(self, lines: list[str], sink: _Sink) -> int:
        """Send calls and return the index of the first one. Waits while the pipe is full."""
        data = memoryview(("\n".join(lines) + "\n").encode())
        with self._send_lock:
            first = self._n_sent
            self._n_sent += len(lines)
            self._routes.add(first, len(lines), sink)
            try:
                while data:
                    data = data[os.write(self._stdin, data) :]
            except (BrokenPipeError, OSError):
                # The reader knows why.
                pass
            if self._error is not None:
                sink.fail(self._error)
            return first

    def position(self, index: int, receiver: object) -> int:
        """Return the index of a call in this process. Receivers of one call have no other."""
        return index

    def _read(self) -> None:
        # The parts of a line are joined at its end: a line can be longer than many reads.
        parts: list[bytes] = []
        try:
            while chunk := os.read(self._stdout, _READ_BYTES):
                end = chunk.rfind(b"\n") + 1
                if end:
                    parts.append(chunk[: end - 1])
                    self._routes.deliver(b"".join(parts).split(b"\n"))
                    parts.clear()
                if end < len(chunk):
                    parts.append(chunk[end:])
        except OSError:
            # The descriptor was closed.
            pass
        finally:
            self._end()

    def _end(self) -> None:
        if self.owner != os.getpid():
            return
        code = self._process.wait()
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - _MAX_STDERR_BYTES))
        stderr = self._stderr.read()
        self._error = unexpected(b"", stderr, code) if code else HostError("the batch has ended")
        self.has_ended = True
        for receiver in self._routes.clear():
            receiver.fail(self._error)

    def hang_up(self) -> None:
        """Close the input. The process ends when its calls have ended."""
        with self._send_lock:
            if not self._is_closed:
                self._is_closed = True
                assert self._process.stdin is not None
                self._process.stdin.close()

    def terminate(self) -> None:
        """End the calls that run."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """Close the input and wait for the end of the process."""
        self.hang_up()
        try:
            self._process.wait()
        except KeyboardInterrupt:
            self.terminate()
            raise

    def end(self) -> None:
        """End the process now."""
        self.terminate()
        try:
            self._process.wait(_END_TIME_S)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def drop_after_fork(self) -> None:
        """Close the pipes in the child of a fork: the process belongs to the parent."""
        self.has_ended = True
        self._process.returncode = 0
        for file in (self._process.stdin, self._process.stdout):
            if file is not None and not file.closed:
                try:
                    # Without the lock of the file, which a thread of the parent can have.
                    os.close(file.fileno())
                except (OSError, ValueError):
                    pass
        _kept_after_fork.append(self)


class _Routes:
    """Receivers of results, by the indices of the calls."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: Receivers of calls that were sent alone.
        self._single: dict[int, _Receiver] = {}
        #: Ranges of calls that were sent together: the first index, the receiver, and the number of
        #: results that are missing. They are sorted, and neighbours have different receivers.
        self._firsts: list[int] = []
        self._receivers: list[_Receiver] = []
        self._n_missing: list[int] = []

    def add(self, first: int, n_calls: int, receiver: _Receiver) -> None:
        """Add the receiver of calls, before they are sent."""
        with self._lock:
            if n_calls == 1:
                self._single[first] = receiver
            elif self._receivers and self._receivers[-1] is receiver:
                self._n_missing[-1] += n_calls
            else:
                self._firsts.append(first)
                self._receivers.append(receiver)
                self._n_missing.append(n_calls)

    def deliver(self, lines: list[bytes]) -> None:
        """Give each line to the receiver of its call."""
        with self._lock:
            if not self._single and len(self._receivers) == 1:
                # Who else could have sent these calls? Their indices need not be read.
                receiver = self._receivers[0]
                self._received(0, len(lines))
                found = [(receiver, lines)]
            else:
                found = self._sort(lines)
        for receiver, of_it in found:
            receiver.put(of_it)

    def _sort(self, lines: list[bytes]) -> list[tuple[_Receiver, list[bytes]]]:
        found: dict[int, tuple[_Receiver, list[bytes]]] = {}
        for line in lines:
            index = _index_of(line)
            receiver = self._single.pop(index, None)
            if receiver is None:
                at = bisect_right(self._firsts, index) - 1
                receiver = self._receivers[at]
                self._received(at, 1)
            found.setdefault(id(receiver), (receiver, []))[1].append(line)
        return list(found.values())

    def _received(self, at: int, n_results: int) -> None:
        self._n_missing[at] -= n_results
        if self._n_missing[at] == 0:
            del self._firsts[at], self._receivers[at], self._n_missing[at]

    def clear(self) -> list[_Receiver]:
        """Remove all receivers and return them."""
        with self._lock:
            found = {id(receiver): receiver for receiver in self._single.values()}
            found.update((id(receiver), receiver) for receiver in self._receivers)
            self._single.clear()
            self._firsts.clear()
            self._receivers.clear()
            self._n_missing.clear()
        return list(found.values())


def _enlarge(pipe: int) -> None:
    # Linux has this; the limit of a user can be lower.
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    except (AttributeError, OSError):
        pass


#: Connections of the parent process, whose files must not be closed a second time.
_kept_after_fork: list[_Connection] = []


def _words(
    module: str, options: Mapping[str, Any], more: Sequence[str] = ()
) -> list[str]:
    words = ["batch", module, "--calls=-", "--results=-", "--quiet", *more]
    if options["contract"] is not None:
        words.append(f"--contract={options['contract']}")
    if options["output"] is not None:
        words.append(f"--output={absolute(options['output'])}")
    for name in ("input", "read"):
        value = options[name]
        for path in [value] if isinstance(value, (str, os.PathLike)) else value:
            words.append(f"--{name}={absolute(path)}")
    words += limit_words(options)
    words += [f"--die-with-parent={os.getpid()}", f"--share={_share.folder()}"]
    if options["fixed_args"]:
        words += ["--", *options["fixed_args"]]
    return words


def _lines(items: Iterable[Mapping[str, Any] | Sequence[str]]) -> Iterator[str]:
    for index, item in enumerate(items):
        if isinstance(item, Mapping):
            yield '{"args":' + _json.dumps(item, f"items[{index}]") + "}"
        elif isinstance(item, (list, tuple)):
            yield '{"argv":' + _json.dumps(item, f"items[{index}]") + "}"
        else:
            text = f"must be args (a dict) or a command line (a list), not {type(item).__name__}"
            raise DocumentsError([Problem(text, location=f"items[{index}]")])


def _take(lines: Iterator[str], n_most: int) -> tuple[list[str], bool]:
    """Take lines to send at once. Returns them, and True if there are no more."""
    chunk: list[str] = []
    n_bytes = 0
    last = time.monotonic() + _CHUNK_TIME_S
    while len(chunk) < n_most and n_bytes < _CHUNK_BYTES:
        try:
            line = next(lines)
        except StopIteration:
            return chunk, True
        chunk.append(line)
        n_bytes += len(line)
        if time.monotonic() > last:
            break
    return chunk, False


def _index_of(line: bytes) -> int:
    # The program writes the index first. Parsing the rest is left to whoever reads the result.
    if line.startswith(_INDEX):
        return int(line[len(_INDEX) : line.index(b",")])
    index: int = json.loads(line)["index"]
    return index


def batch(module: PathLike, **options: Unpack[BatchOptions]) -> Batch:
    """Open a module for many calls.

    Args:
        module: The module (.wasm).
        **options: See :class:`BatchOptions`.

    Example:
        >>> import mandelbox
        >>> with mandelbox.batch("tool.wasm", contract="argv") as tool:  # doctest: +SKIP
        ...     print(tool.call(argv=["--version"]).stdout)
    """
    return Batch(module, **options)


def map(
    module: PathLike,
    items: Iterable[Mapping[str, Any] | Sequence[str]],
    *,
    ordered: bool = True,
    **options: Unpack[BatchOptions],
) -> Iterator[CallResult]:
    """Call a module for each item and iterate over the results, as :meth:`Batch.map` does.

    The process stays open for further calls of the same module with the same options.

    Args:
        module: The module (.wasm).
        items: For each call its args, or its command line.
        ordered: True for the order of the items, False for the order in which calls end.
        **options: See :class:`BatchOptions`.

    Example:
        >>> import mandelbox
        >>> names = ["a.pgm", "b.pgm"]
        >>> for result in mandelbox.map(  # doctest: +SKIP
        ...     "task.wasm", ({"component": name} for name in names), input="images", output="masks"
        ... ):
        ...     print(result.output)
    """
    return _shared_batch(module, options).map(items, ordered=ordered)


class Task:
    """One module as a function, to try it out: arguments in, its output (metadiff) out.

    Example:
        >>> import mandelbox
        >>> segment = mandelbox.Task("otsu.wasm", input="images", output="masks")  # doctest: +SKIP
        >>> segment(component="cells.pgm")  # doctest: +SKIP
        {'threshold': 117}
    """

    def __init__(
        self,
        module: PathLike,
        *,
        input: PathLike | Sequence[PathLike] = (),
        output: PathLike | None = None,
        read: PathLike | Sequence[PathLike] = (),
        memory: int | str | None = None,
        timeout: float | str | timedelta | None = None,
        contract: Literal["v1", "v2", "typed"] | None = None,
    ) -> None:
        """Prepare the calls; see :class:`BatchOptions` for the arguments."""
        self.module = absolute(module)
        self._options: BatchOptions = {
            "input": input,
            "output": output,
            "read": read,
            "memory": memory,
            "timeout": timeout,
            "contract": contract,
        }

    def __call__(self, **args: Any) -> dict[str, Any] | None:
        """Call the task and return its output.

        Raises:
            TaskExecutionError: The task failed by itself.
            JobExecutionError: The sandbox or the host ended the call.
            DocumentsError: The module or an argument cannot be used.
            HostError: mandelbox itself failed.
        """
        return _shared_batch(self.module, self._options).call(args).value()

    def describe(self) -> dict[str, Any]:
        """Return what ``mandelbox check`` finds in the module.

        For a typed task, ``["task"]`` is its manifest entry with the schema of its arguments.

        Raises:
            DocumentsError: The module cannot be used.
        """
        found = check(self.module)
        if not found.ok:
            raise DocumentsError(found.problems)
        facts: dict[str, Any] = found.facts[found.what]
        return facts

    def __repr__(self) -> str:
        return f"<mandelbox.Task {self.module}>"


_shared: OrderedDict[tuple[Any, ...], Batch] = OrderedDict()
_shared_lock = threading.Lock()


def _shared_batch(module: PathLike, options: BatchOptions) -> Batch:
    path = absolute(module)
    try:
        facts = os.stat(path)
        state: tuple[int, ...] = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
    except OSError:
        # The program reports what is wrong with it.
        state = ()
    unknown = sorted(set(options) - set(_DEFAULTS))
    if unknown:
        raise TypeError(f"unknown option `{unknown[0]}`")
    key = (*_words(path, {**_DEFAULTS, **options}), state, os.getpid())
    with _shared_lock:
        found = _shared.pop(key, None) or Batch(path, **options)
        _shared[key] = found
        if len(_shared) > _MAX_SHARED:
            # Its process ends when nobody uses it any more.
            _shared.popitem(last=False)
        return found


def _at_exit() -> None:
    connections = [batch._connection for batch in list(_open_batches)]
    own = [found for found in connections if found is not None and found.owner == os.getpid()]
    for connection in own:
        connection.hang_up()
    for connection in own:
        connection.end()


def _after_fork() -> None:
    global _shared_lock
    _shared_lock = threading.Lock()
    for found in list(_open_batches):
        found._drop_after_fork()
    _shared.clear()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork)
