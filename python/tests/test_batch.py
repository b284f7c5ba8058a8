"""Calls through one open process."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mandelbox

from .conftest import EXAMPLES, Project, module
from .test_run import children_of, is_running, wait_until


def batch(name: str = "swiss", **options: Any) -> mandelbox.Batch:
    return mandelbox.batch(module(name), isolation="thread", **options)


def test_a_task_returns_its_output(project: Project) -> None:
    images = EXAMPLES / "otsu" / "images"
    if not images.is_dir():
        images = EXAMPLES / "otsu-rust" / "images"
    segment = mandelbox.Task(module("otsu-rust"), input=images, output="masks")
    assert segment(component="cells.pgm") == {"thresholds": {"cells.pgm": 96}}
    assert list(Path("masks").iterdir())
    with pytest.raises(mandelbox.TaskExecutionError) as raised:
        segment(component="none.pgm")
    assert raised.value.calls[0].exit_code not in (0, None)
    fail = mandelbox.Task(module("swiss"))
    with pytest.raises(mandelbox.JobExecutionError):
        fail(signal="x")
    with pytest.raises(mandelbox.DocumentsError, match="call: /args/a"):
        fail(a=object())


def test_results_in_order_and_as_they_come() -> None:
    items = [{"sleep_ms": 300 if i == 0 else 0, "metadiff": {"i": i}} for i in range(10)]
    with batch(jobs=2) as swiss:
        ordered = [result.output for result in swiss.map(items)]
        assert ordered == [{"i": i} for i in range(10)]
        coming = [result.value() for result in swiss.map(items, ordered=False)]
        assert coming[0] != {"i": 0} and sorted(out["i"] for out in coming if out) == list(range(10))
        # The index is that of the item, also for later items of the same process.
        for result in swiss.map(items, ordered=False):
            assert result.output == {"i": result.index}


def test_failed_calls_have_results() -> None:
    with batch() as swiss:
        good, bad, trap = swiss.map([{}, {"exit": 3, "stderr": "why"}, {"signal": "x"}])
    assert good.ok and good.exit_code == 0
    assert (bad.outcome, bad.exit_code, bad.stderr, bad.ok) == ("exited", 3, "why", False)
    with pytest.raises(mandelbox.TaskExecutionError, match="why"):
        bad.value()
    assert trap.outcome == "trapped" and trap.message
    with pytest.raises(mandelbox.JobExecutionError):
        trap.value()


def test_items_are_taken_as_calls_end() -> None:
    taken = itertools.count()
    n_taken = 0

    def items() -> Iterator[dict[str, Any]]:
        nonlocal n_taken
        for n_taken in taken:
            yield {}

    with batch("trivial_typed") as trivial:
        results = trivial.map(items())
        for _ in range(100):
            next(results)
        assert n_taken < 5000
        results.close()  # type: ignore[attr-defined]
        # The process goes on with other calls.
        assert trivial.call({}).ok


def test_large_calls_do_not_block() -> None:
    text = "x" * 300_000
    with batch() as swiss:
        results = swiss.map({"metadiff": {"text": text}} for _ in range(40))
        assert sum(len((result.output or {})["text"]) for result in results) == 40 * 300_000


def test_threads_share_a_batch() -> None:
    with batch(jobs=2) as swiss:
        found: dict[int, list[int]] = {}

        def call(thread: int) -> None:
            items = ({"metadiff": {"i": 100 * thread + i}} for i in range(50))
            results = list(swiss.map(items))
            assert [result.index for result in results] == list(range(50))
            found[thread] = [(result.output or {})["i"] for result in results]

        threads = [threading.Thread(target=call, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {t: [100 * t + i for i in range(50)] for t in range(4)}


def test_a_command_line() -> None:
    with mandelbox.batch(module("twins"), contract="argv", isolation="thread") as twins:
        assert twins.call(argv=["true"]).stdout == "true\n"
        assert [result.exit_code for result in twins.map([["true"], ["false"]])] == [0, 1]


def test_fixed_arguments(project: Project) -> None:
    Path("data").mkdir()
    options: dict[str, Any] = {"output": "data", "isolation": "thread", "contract": "v2"}
    with mandelbox.batch(module("twins"), fixed_args=["v2_create"], **options) as create:
        zarr_dir = str(Path("data").absolute())
        output = create.call({"zarr_dir": zarr_dir}).value()
    assert output and len(output["image_list_updates"]) == 3


def test_a_module_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(mandelbox.DocumentsError):
        list(mandelbox.map(tmp_path / "none.wasm", [{}]))
    (tmp_path / "text.wasm").write_text("text")
    with pytest.raises(mandelbox.DocumentsError, match="text.wasm"):
        mandelbox.Task(tmp_path / "text.wasm")()
    with pytest.raises(mandelbox.DocumentsError, match=r"items\[1\]: must be args"):
        with batch() as swiss:
            list(swiss.map([{}, 3]))  # type: ignore[list-item]
    with pytest.raises(TypeError, match="unknown option `job`"):
        batch(job=3)


def test_a_batch_ends_with_its_block() -> None:
    swiss = batch()
    with swiss:
        swiss.call({})
        assert swiss._connection is not None
        pid = swiss._connection._process.pid
    assert not is_running(pid)
    with pytest.raises(mandelbox.MandelboxError, match="closed"):
        swiss.call({})
    with pytest.raises(ZeroDivisionError):
        with batch() as swiss:
            with pytest.raises(TimeoutError):
                swiss.call({"sleep_ms": 60_000}, timeout=0.2)
            raise ZeroDivisionError
    other = batch()
    other.call({})
    assert other._connection is not None
    pid = other._connection._process.pid
    del other
    gc.collect()
    wait_until(lambda: not is_running(pid))


def test_a_process_that_was_killed_is_reported_and_replaced() -> None:
    with batch() as swiss:
        swiss.call({})
        assert swiss._connection is not None
        swiss._connection._process.kill()
        with pytest.raises(mandelbox.HostError, match="SIGKILL"):
            while True:
                swiss.call({"sleep_ms": 1})
        wait_until(lambda: swiss._connection is not None and swiss._connection.has_ended)
        assert swiss.call({}).ok


def _calls(queue: Any, swiss: mandelbox.Batch | None) -> None:
    found = swiss.call({"metadiff": {"a": 1}}).output if swiss else None
    results = mandelbox.map(module("swiss"), [{}, {}], isolation="thread")
    queue.put((found, sum(result.ok for result in results)))


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_children_have_processes_of_their_own(method: str) -> None:
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    with batch() as swiss:
        swiss.call({})
        list(mandelbox.map(module("swiss"), [{}], isolation="thread"))
        child = context.Process(target=_calls, args=(queue, swiss if method == "fork" else None))
        child.start()
        found, n_ok = queue.get(timeout=60)
        assert found == ({"a": 1} if method == "fork" else None) and n_ok == 2
        child.join(30)
        assert child.exitcode == 0
        assert swiss.call({}).ok, "the parent's process goes on"


def test_a_killed_python_leaves_no_process() -> None:
    text = f"""
        import mandelbox
        mandelbox.Task({module("swiss")!r})(sleep_ms=600_000)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    python = subprocess.Popen([sys.executable, "-c", textwrap.dedent(text)], env=environment)
    wait_until(lambda: len(children_of(python.pid)) >= 2)
    time.sleep(1)
    left = children_of(python.pid)
    python.kill()
    python.wait()
    wait_until(lambda: not any(is_running(pid) for pid in left), 20)
