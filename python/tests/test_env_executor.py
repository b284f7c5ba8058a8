"""Functions in the sandbox: ``SandboxExecutor``."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest

from mandelbox._executor import SandboxExecutor
from mandelbox.errors import JobExecutionError

ENVIRONMENT = os.environ.get("MANDELBOX_TEST_ENV")
pytestmark = pytest.mark.skipif(
    ENVIRONMENT is None, reason="MANDELBOX_TEST_ENV names no environment"
)

MODULE = """
import os

class OwnError(Exception):
    pass

def add(a, b=1):
    return a + b

def long_text(n):
    return "x" * n

def fail(kind):
    if kind == "own":
        raise OwnError("mine", 3)
    raise KeyError(kind)

def loop():
    while True:
        pass

def double(array):
    return {"doubled": array * 2, "n": int(array.size)}

def listing(path):
    return sorted(os.listdir(path))

def write(path):
    with open(path, "w") as file:
        file.write("text")

def environment():
    return dict(os.environ)

def wrong():
    return object()
"""


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "sandbox_functions.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop("sandbox_functions", None)
    import sandbox_functions

    return sandbox_functions


def executor(**options) -> SandboxExecutor:
    assert ENVIRONMENT is not None
    return SandboxExecutor(ENVIRONMENT, **options)


def test_results_are_those_of_processes(functions: ModuleType) -> None:
    with executor() as ours, ProcessPoolExecutor(1) as theirs:
        for pool in (ours, theirs):
            assert list(pool.map(functions.add, [1, 2, 3], [10, 20, 30])) == [11, 22, 33]
            assert pool.submit(functions.add, 1, b=2).result() == 3
            assert pool.submit(functions.long_text, 200_000).result() == "x" * 200_000
            with pytest.raises(KeyError, match="lost"):
                pool.submit(functions.fail, "lost").result()
            with pytest.raises(functions.OwnError) as caught:
                pool.submit(functions.fail, "own").result()
            assert caught.value.args == ("mine", 3)
            assert "in fail" in str(caught.value.__cause__)
    with pytest.raises(RuntimeError, match="after shutdown"):
        ours.submit(functions.add, 1)


def test_arrays_pass_through_files(functions: ModuleType) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(12, dtype="u2").reshape(3, 4)
    with executor() as pool:
        result = pool.submit(functions.double, array).result()
        assert result["n"] == 12
        assert result["doubled"].dtype == array.dtype
        assert (result["doubled"] == array * 2).all()


def test_calls_see_what_is_granted(functions: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_text("a")
    (tmp_path / "secret").mkdir()
    with executor(read=tmp_path / "in", write=tmp_path / "out") as pool:
        assert pool.submit(functions.listing, tmp_path / "in").result() == ["a"]
        assert pool.submit(functions.environment).result() == {}
        pool.submit(functions.write, tmp_path / "out" / "b").result()
        for path in (tmp_path / "in" / "b", tmp_path / "secret" / "b"):
            with pytest.raises(OSError):
                pool.submit(functions.write, path).result()
        with pytest.raises(OSError):
            pool.submit(functions.listing, tmp_path / "secret").result()
    assert os.listdir(tmp_path / "out") == ["b"]


def test_limits_and_wrong_values_are_errors(functions: ModuleType) -> None:
    with executor(timeout=20) as pool:
        endless = pool.submit(functions.loop)
        with pytest.raises(TypeError, match="result: object is neither JSON nor an array"):
            pool.submit(functions.wrong).result()
        with pytest.raises(TypeError, match=r"args\[0\]: object is neither"):
            pool.submit(functions.add, object())
        with pytest.raises(TypeError, match="define it at the top level"):
            pool.submit(lambda: 1)
        with pytest.raises(JobExecutionError, match="time limit"):
            endless.result()


def test_items_of_a_chunk_share_a_call(functions: ModuleType) -> None:
    with executor(max_workers=1) as pool:
        assert list(pool.map(functions.add, range(5), chunksize=2)) == [1, 2, 3, 4, 5]
        assert list(pool.map(functions.long_text, [60_000, 1], chunksize=2)) == ["x" * 60_000, "x"]
        results = pool.map(functions.add, [1, "a", 2], chunksize=3)
        assert next(results) == 2
        with pytest.raises(TypeError, match="str"):
            next(results)
        with pytest.raises(ValueError, match="chunksize"):
            pool.map(functions.add, [1], chunksize=0)
