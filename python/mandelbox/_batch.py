"""Many calls of one module through one process of ``mandelbox batch`` that stays open."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict

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
_READ_BYTES = 1 << 18
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
        index: Position of the call, from 0.
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
    facts = json.loads(line)
    return CallResult(
        facts["index"],
        facts["item"],
        facts["outcome"],
        facts["exit_code"],
        facts["output"],
        facts["stdout"],
        facts["stderr"],
        facts["wall_time_s"],
        facts["peak_memory_bytes"],
        facts.get("message"),
    )


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
        connection = self._connect()
        sink = _Sink()
        lines = _lines(items)
        base: int | None = None
        waiting: dict[int, CallResult] = {}
        n_sent = n_given = 0
        is_exhausted = False
        while True:
            # Half of the window is refilled at a time, so that many calls are sent at once.
            if not is_exhausted and n_sent - n_given <= _WINDOW // 2:
                chunk, is_exhausted = _take(lines, _WINDOW - (n_sent - n_given))
                if chunk:
                    first = connection.send(chunk, sink)
                    n_sent += len(chunk)
                    base = first if base is None else base
            if is_exhausted and n_given == n_sent:
                return
            can_send = not is_exhausted and n_sent - n_given <= _WINDOW // 2
            for line in sink.take_all(0.0 if can_send else None):
                result = _result(line)
                if not ordered:
                    n_given += 1
                    yield result
                    continue
                waiting[connection.position(result.index, sink)] = result
            while ordered and n_given in waiting:
                yield waiting.pop(n_given)
                n_given += 1

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


class _Sink:
    """Receives the lines of results for one caller."""

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
        #: Who waits for the result of a call, and which of its calls it is.
        self._waiting: dict[int, tuple[_Sink, int]] = {}
        self._positions: dict[int, int] = {}
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = launch(words, stdin=None, stdout=subprocess.PIPE, stderr=self._stderr, pipe=True)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stdin = self._process.stdin.fileno()
        self._stdout = self._process.stdout.fileno()
        threading.Thread(target=self._read, name="mandelbox-batch", daemon=True).start()

    def send(self, lines: list[str], sink: _Sink) -> int:
        """Send calls and return the index of the first one. Waits while the pipe is full."""
        data = memoryview(("\n".join(lines) + "\n").encode())
        with self._send_lock:
            first = self._n_sent
            self._n_sent += len(lines)
            start = getattr(sink, "n_calls", 0)
            sink.n_calls = start + len(lines)  # type: ignore[attr-defined]
            for offset in range(len(lines)):
                self._waiting[first + offset] = (sink, start + offset)
            try:
                while data:
                    data = data[os.write(self._stdin, data) :]
            except (BrokenPipeError, OSError):
                # The reader knows why.
                pass
            if self._error is not None:
                sink.fail(self._error)
            return first

    def position(self, index: int, sink: _Sink) -> int:
        """Return which call of its sender a result is for."""
        return self._positions.pop(index)

    def _read(self) -> None:
        rest = b""
        try:
            while True:
                chunk = os.read(self._stdout, _READ_BYTES)
                if not chunk:
                    break
                *lines, rest = (rest + chunk).split(b"\n")
                self._deliver(lines)
        except OSError:
            # The descriptor was closed.
            pass
        finally:
            self._end()

    def _deliver(self, lines: list[bytes]) -> None:
        by_sink: dict[int, tuple[_Sink, list[bytes]]] = {}
        for line in lines:
            index = _index_of(line)
            waiting = self._waiting.pop(index, None)
            if waiting is None:
                continue
            sink, position = waiting
            self._positions[index] = position
            by_sink.setdefault(id(sink), (sink, []))[1].append(line)
        for sink, of_sink in by_sink.values():
            sink.put(of_sink)

    def _end(self) -> None:
        if self.owner != os.getpid():
            return
        code = self._process.wait()
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - _MAX_STDERR_BYTES))
        stderr = self._stderr.read()
        self._error = unexpected(b"", stderr, code) if code else HostError("the batch has ended")
        self.has_ended = True
        for sink, _ in list(self._waiting.values()):
            sink.fail(self._error)
        self._waiting.clear()

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
            raise DocumentsError([Problem(text, place=f"items[{index}]")])


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
