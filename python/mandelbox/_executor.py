"""A drop-in for ``ProcessPoolExecutor`` whose functions run in the sandbox."""

from __future__ import annotations

import builtins
import inspect
import json
import os
import secrets
import shutil
import stat
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ._batch import Batch, CallResult, _result
from ._options import PathLike, absolute
from .errors import MandelboxError, TaskExecutionError

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ["SandboxExecutor"]

_MARK = "\x1e"
_ARRAY = "mandelbox:array"


class SandboxExecutor(Executor):
    """Runs functions in sandboxes, with the interface of ``concurrent.futures``.

    Each call has a fresh interpreter without network, environment variables and files, except for the
    folder of the module with the function, which it can read, and what ``read`` and ``write`` name.
    The function must be found by its name in a module: no lambdas and no nested functions. Arguments
    and results are JSON values and numpy arrays.

    Args:
        env: Folder of an environment, made by ``python -m mandelbox.env create``.
        memory: Memory limit of a call: bytes, or text such as ``"2GiB"``.
        timeout: Time limit of a call: seconds, text such as ``"10m"``, or a timedelta.
        read: Folders that all calls can read, at the same paths.
        write: Folder that all calls can write to, at the same path.
        max_workers: Calls that run at a time; default: the number of CPUs.

    Example:
        >>> from mandelbox import SandboxExecutor
        >>> with SandboxExecutor("env") as executor:  # doctest: +SKIP
        ...     list(executor.map(my_module.area, [1.0, 2.0]))
    """

    def __init__(
        self,
        env: PathLike,
        *,
        memory: int | str | None = None,
        timeout: float | str | timedelta | None = None,
        read: PathLike | Sequence[PathLike] = (),
        write: PathLike | None = None,
        max_workers: int | None = None,
    ) -> None:
        self._env = absolute(env)
        paths = [read] if isinstance(read, (str, os.PathLike)) else list(read)
        self._read = [absolute(path) for path in paths]
        self._scratch = tempfile.mkdtemp(prefix="mandelbox-executor-")
        self._inputs = os.path.join(self._scratch, "in")
        os.mkdir(self._inputs)
        self._write = os.path.join(self._scratch, "out") if write is None else absolute(write)
        # Files of results are moved to the caller at once.
        self._outputs = os.path.join(self._write, f".mandelbox-{secrets.token_hex(8)}")
        os.makedirs(self._outputs)
        self._options: dict[str, Any] = {"memory": memory, "timeout": timeout, "jobs": max_workers}
        self._lock = threading.Lock()
        self._batches: dict[str, Batch] = {}
        self._pending: set[Future[list[_Returned]]] = set()
        self._is_shut_down = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Start a call and return its future.

        Args:
            fn: A function at the top level of a module.
            *args: Its arguments.
            **kwargs: Its keyword arguments.

        Raises:
            TypeError: Arguments that are neither JSON nor arrays, or a function without a name in a
                module.
            RuntimeError: The executor was shut down.
        """
        answers = self._start(fn, [(args, kwargs)])
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()

        def finish(done: Future[list[_Returned]]) -> None:
            try:
                future.set_result(done.result()[0].get())
            except BaseException as error:
                future.set_exception(error)

        answers.add_done_callback(finish)
        return future

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[Any]:
        """Call a function with the items of iterables, as ``map`` does, and return the results in order.

        Args:
            fn: A function at the top level of a module.
            *iterables: Its arguments. All are read at once.
            timeout: Seconds after which the next result raises a ``TimeoutError``.
            chunksize: Items of a call of the sandbox. They share an interpreter, and what it costs to
                start it; by default, each item has its own.

        Raises:
            ValueError: ``chunksize`` is below 1.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be 1 or more")
        items: list[_Item] = [(args, {}) for args in zip(*iterables)]  # noqa: B905
        starts = range(0, len(items), chunksize)
        chunks = [self._start(fn, items[start : start + chunksize]) for start in starts]
        deadline = None if timeout is None else time.monotonic() + timeout
        return _results(chunks, deadline)

    def _start(self, fn: Callable[..., Any], items: Sequence[_Item]) -> Future[list[_Returned]]:
        """Start a call of the sandbox for some items. There is no answer after the first error."""
        location = _location_of(fn)
        name = secrets.token_hex(16)
        out = os.path.join(self._outputs, name)
        encoder = _Encoder(os.path.join(self._inputs, name))
        request = {
            "root": location.root,
            "file": location.file,
            "module": location.module,
            "function": location.function,
            "items": [
                {
                    "args": encoder.encode(list(args), "args"),
                    "kwargs": encoder.encode(kwargs, "kwargs"),
                }
                for args, kwargs in items
            ],
            "out": out,
        }
        future: Future[list[_Returned]] = Future()
        with self._lock:
            if self._is_shut_down:
                raise RuntimeError("cannot schedule new futures after shutdown")
            batch = self._batch_for(location.root)
            self._pending.add(future)
        future.add_done_callback(self._forget)
        future.set_running_or_notify_cancel()
        connection = batch._connect()
        line = json.dumps({"argv": [], "stdin": json.dumps(request)})
        files = encoder.files, _Outputs(out)
        answer = _Answer(future, str(fn.__module__), files, connection)
        connection.send([line], answer)  # type: ignore[arg-type]
        return future

    def _forget(self, future: Future[list[_Returned]]) -> None:
        with self._lock:
            self._pending.discard(future)

    def _batch_for(self, root: str) -> Batch:
        batch = self._batches.get(root)
        if batch is None:
            read = [*self._read, self._inputs, *([root] if root else [])]
            script = os.path.join(self._env, "boot", "call.py")
            batch = Batch(
                script,
                contract="argv",
                python=self._env,
                read=read,
                output=self._write,
                **self._options,
            )
            self._batches[root] = batch
        return batch

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes when the calls have ended.

        Args:
            wait: True to wait for the calls.
            cancel_futures: True to end running calls; their futures have an error.
        """
        with self._lock:
            self._is_shut_down = True
            batches = list(self._batches.values())
        for batch in batches:
            connection = batch._connection
            if connection is not None and cancel_futures:
                connection.terminate()
        if not wait:
            threading.Thread(target=self._close, args=(batches,), daemon=True).start()
            return
        self._close(batches)

    def _close(self, batches: list[Batch]) -> None:
        for batch in batches:
            batch.close()
        shutil.rmtree(self._outputs, ignore_errors=True)
        shutil.rmtree(self._scratch, ignore_errors=True)


#: Arguments and keyword arguments.
_Item = tuple[Sequence[Any], dict[str, Any]]


@dataclass(frozen=True)
class _Returned:
    """Value that a function returned, or error that it raised."""

    value: Any = None
    error: BaseException | None = None

    def get(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


class _Location:
    """Where the interpreter finds a function."""

    def __init__(self, root: str, file: str, module: str, function: str) -> None:
        self.root = root
        self.file = file
        self.module = module
        self.function = function


def _location_of(fn: Callable[..., Any]) -> _Location:
    function = getattr(fn, "__qualname__", None)
    module = getattr(fn, "__module__", None)
    if not function or "<" in function:
        raise TypeError(f"{fn!r} has no name in a module; define it at the top level of a file")
    try:
        source = inspect.getsourcefile(fn)
    except TypeError:
        source = None
    if source is None or not os.path.exists(source):
        if module in (None, "__main__"):
            raise TypeError(f"{fn!r} is not in a file; define it in a module")
        return _Location("", "", module, function)
    path = os.path.abspath(source)
    if module == "__main__":
        return _Location(os.path.dirname(path), path, "", function)
    if any(path.startswith(folder + os.sep) for folder in _installed()):
        return _Location("", "", str(module), function)
    parts = str(module).split(".")
    is_package = os.path.basename(path) == "__init__.py"
    root = Path(path).parents[len(parts) - (0 if is_package else 1)]
    return _Location(str(root), "", str(module), function)


def _installed() -> list[str]:
    """Return the folders whose modules the environment has itself."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return [os.path.abspath(sysconfig.get_path(name)) for name in names]


class _Encoder:
    """Converts arguments to JSON. Arrays are saved as files."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.files: list[str] = []

    def encode(self, value: Any, location: str) -> Any:
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, (list, tuple)):
            return [self.encode(item, f"{location}[{i}]") for i, item in enumerate(value)]
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str):
                    raise TypeError(f"{location}: a key must be a string, not {type(key).__name__}")
            if _ARRAY in value:
                raise TypeError(f"{location}: the key `{_ARRAY}` is reserved")
            return {key: self.encode(item, f"{location}.{key}") for key, item in value.items()}
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(value, numpy.ndarray):
            path = f"{self._prefix}-{len(self.files)}.npy"
            numpy.save(path, value, allow_pickle=False)
            self.files.append(path)
            return {_ARRAY: path}
        if numpy is not None and isinstance(value, numpy.generic):
            return value.item()
        raise TypeError(f"{location}: {type(value).__name__} is neither JSON nor an array")


class _Outputs:
    """Files of the result of one call. The sandbox names them by numbers only, and no link is followed."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def open(self, number: Any) -> BinaryIO:
        """Open a file and remove its name."""
        if not isinstance(number, int):
            raise ValueError(f"a file of a result must have a number, not {number!r}")
        path = f"{self._prefix}-{number}"
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        file = os.fdopen(descriptor, "rb")
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            file.close()
            raise ValueError("a file of a result must be a regular file")
        os.unlink(path)
        return file

    def decode(self, value: Any) -> Any:
        """Return a value in which arrays are loaded from their files."""
        if isinstance(value, list):
            return [self.decode(item) for item in value]
        if isinstance(value, dict):
            if set(value) == {_ARRAY}:
                import numpy

                with self.open(value[_ARRAY]) as file:
                    return numpy.load(file, allow_pickle=False)
            return {key: self.decode(item) for key, item in value.items()}
        return value


class _Answer:
    """Receives the line of a result and completes a future."""

    def __init__(
        self,
        future: Future[list[_Returned]],
        module: str,
        files: tuple[list[str], _Outputs],
        connection: Any,
    ) -> None:
        self._future = future
        self._module = module
        self._files, self._outputs = files
        self._connection = connection

    def put(self, lines: list[bytes]) -> None:
        result = _result(lines[0])
        self._connection.position(result.index, self)
        self._remove_files()
        try:
            returned = _returned_of(result, self._module, self._outputs)
        except BaseException as error:
            self._future.set_exception(error)
        else:
            self._future.set_result(returned)

    def fail(self, error: MandelboxError) -> None:
        self._remove_files()
        if not self._future.done():
            self._future.set_exception(error)

    def _remove_files(self) -> None:
        for path in self._files:
            if os.path.exists(path):
                os.unlink(path)


def _results(chunks: Sequence[Future[list[_Returned]]], deadline: float | None) -> Iterator[Any]:
    try:
        for chunk in chunks:
            left = None if deadline is None else deadline - time.monotonic()
            for returned in chunk.result(left):
                yield returned.get()
    finally:
        for chunk in chunks:
            chunk.cancel()


def _returned_of(result: CallResult, module: str, outputs: _Outputs) -> list[_Returned]:
    printed, mark, text = result.stdout.rpartition(_MARK)
    sys.stderr.write(result.stderr)
    if not result.ok or not mark:
        result.value()
        raise TaskExecutionError(f"the call returned no result\n{result.stderr}", calls=[])
    sys.stdout.write(printed)
    answer = json.loads(text)
    if "file" in answer:
        with outputs.open(answer["file"]) as file:
            answers = json.load(file)
    else:
        answers = answer["answers"]
    return [
        _Returned(error=_error_of(one["error"], module))
        if "error" in one
        else _Returned(value=outputs.decode(one["result"]))
        for one in answers
    ]


class _RemoteTraceback(Exception):
    """Traceback of the sandbox, as the cause of the error."""

    def __str__(self) -> str:
        return f"\n'''\n{self.args[0].rstrip()}\n'''"


def _error_of(facts: dict[str, Any], module: str) -> BaseException:
    """Return the error of the sandbox. It has the same type if that is a built-in one, or one of the
    module with the function.
    """
    kind = None
    if facts["module"] == "builtins":
        kind = getattr(builtins, facts["type"], None)
    elif facts["module"] in (module, "__mp_main__"):
        kind = getattr(sys.modules.get(module), facts["type"], None)
    error: BaseException | None = None
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            error = kind(*facts["args"])
        except Exception:
            error = None
    if error is None:
        text = ", ".join(str(arg) for arg in facts["args"])
        error = TaskExecutionError(f"{facts['type']}: {text}", calls=[])
    error.__cause__ = _RemoteTraceback(facts["traceback"])
    return error
