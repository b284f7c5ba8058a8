"""Runs through the program."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import mandelbox
from mandelbox import Event

from .conftest import EXAMPLES, Project, module, workflow


def wait_until(reached: Any, seconds: float = 30) -> None:
    last = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < last, "waited too long"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_result_has_the_dataset_the_tasks_and_the_calls(project: Project) -> None:
    echo = {"echo": ["size"], "size": 0.30000000000000000001, "per_component": {}}
    result = mandelbox.run(workflow(echo), **project.options, metadata={"big": 2**70})
    assert result.metadata["well"] == ["c0", "c1", "c2"]
    assert result.metadata["big"] == 2**70
    assert [item["status"] for item in result.history] == ["done", "done"]
    assert [(t.order, t.name, t.state, t.n_done) for t in result.tasks] == [
        (0, "list", "done", 1),
        (1, "second", "done", 3),
    ]
    calls = result.calls()
    assert [call["component"] for call in calls if call["task"] == "second"] != []
    assert sorted(str(call["component"]) for call in calls) == ["None", "c0", "c1", "c2"]
    assert all(call["outcome"] == "succeeded" and call["wall_time_s"] >= 0 for call in calls)
    assert result.report().is_file()
    shown = result._repr_html_()
    assert "<td" in shown and "second" in shown and "work/report.html" in shown
    assert pickle.loads(pickle.dumps(result)) == result


def test_the_default_work_dir_is_new(project: Project) -> None:
    del project.options["work_dir"]
    folders = {mandelbox.run(workflow({}), **project.options).work_dir for _ in range(2)}
    assert len(folders) == 2
    assert all(folder.parent == Path.cwd() / "mandelbox-runs" for folder in folders)
    with pytest.raises(mandelbox.DocumentsError):
        mandelbox.run({"name": "x", "task_list": 1}, **project.options)
    assert len(list((Path.cwd() / "mandelbox-runs").iterdir())) == 2, "nothing is left of it"


def test_a_plan_writes_nothing(project: Project) -> None:
    before = sorted(Path.cwd().rglob("*"))
    plan = mandelbox.plan(workflow({}), **project.options, memory="1GiB", timeout=90)
    assert [t.name for t in plan.tasks] == ["list", "second"]
    assert plan.tasks[1].memory_bytes == 1 << 30 and plan.tasks[1].wall_time_s == 90
    assert plan.folders == {str(project.folder / "in"): False, str(project.folder / "out"): True}
    assert "second" in plan._repr_html_()
    assert sorted(Path.cwd().rglob("*")) == before


def test_problems_have_their_locations(project: Project) -> None:
    wrong = workflow({})
    wrong["task_list"][1]["task"]["command"] = "/bin/true"
    wrong["task_list"][0]["args"] = 3
    with pytest.raises(mandelbox.DocumentsError) as raised:
        mandelbox.run(wrong, **project.options)
    pointers = {problem.pointer for problem in raised.value.problems}
    assert {"/task_list/1/task/command", "/task_list/0/args"} <= pointers
    assert not (project.folder / "work").exists()
    with pytest.raises(mandelbox.DocumentsError, match="metadata: /a"):
        mandelbox.run(workflow({}), **project.options, metadata={"a": float("nan")})
    with pytest.raises(TypeError, match="did you mean `jobs`"):
        mandelbox.run(workflow({}), **project.options, job=3)  # type: ignore[call-arg]
    with pytest.raises(mandelbox.DocumentsError, match="resume: needs `work_dir`"):
        mandelbox.run(workflow({}), output="out", resume=True)
    with pytest.raises(mandelbox.DocumentsError, match="--jobs"):
        mandelbox.run(workflow({}), **project.options, jobs=0)


def test_commands_of_a_document_are_relative_to_a_folder(project: Project) -> None:
    os.symlink(module("swiss"), project.folder / "in" / "swiss.wasm")
    document = workflow({})
    for entry in document["task_list"]:
        entry["task"]["command"] = "swiss.wasm"
    mandelbox.run(document, folder="in", **project.options)
    with pytest.raises(mandelbox.DocumentsError, match="folder: is for workflows that are given"):
        mandelbox.plan("w.json", folder="in", **project.options)


def test_a_failure_names_its_calls_and_is_resumed(project: Project) -> None:
    failing = workflow({"per_component": {"c1": {"exit": 7, "stderr": "no image\n"}}})
    with pytest.raises(mandelbox.TaskExecutionError) as raised:
        mandelbox.run(failing, **project.options, keep_going=True)
    error = raised.value
    assert isinstance(error, RuntimeError)
    assert (error.task_name, error.workflow_task_id, error.workflow_task_order) == ("second", 11, 1)
    (call,) = error.calls
    assert (call.component, call.exit_code, call.outcome) == ("c1", 7, "exited")
    assert call.stderr_tail == "no image\n"
    assert call.stderr_path is not None and Path(call.stderr_path).read_text() == "no image\n"
    assert error.result is not None and error.result.metadata["well"] == ["c0", "c1", "c2"]
    result = mandelbox.run(workflow({}), **project.options, resume=True)
    assert result.tasks[1].n_done == 3
    assert mandelbox.status(project.folder / "work").state == "done"


def test_the_sandbox_ends_a_call(project: Project) -> None:
    with pytest.raises(mandelbox.JobExecutionError) as raised:
        mandelbox.run(workflow({"signal": "x"}), **project.options)
    assert raised.value.calls[0].outcome == "trapped"
    assert raised.value.calls[0].exit_code is None
    assert "trapped" in raised.value.assemble_error()


def test_the_host_fails(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANDELBOX", "/none/mandelbox")
    with pytest.raises(mandelbox.HostError) as raised:
        mandelbox.run(workflow({}), **project.options)
    assert raised.value.errno == 2 and raised.value.filename == "/none/mandelbox"
    assert isinstance(raised.value, OSError)


def test_events_arrive_in_order_and_cancel_ends_the_run(project: Project) -> None:
    seen: list[Event] = []
    with mandelbox.start(workflow({"sleep_ms": 200}, n=50), **project.options, jobs=2) as run:
        for event in run.events():
            seen.append(event)
            if event.kind == "call_finished" and event.task == 1:
                run.cancel()
                run.cancel()
    assert [event.seq for event in seen] == list(range(len(seen)))
    assert seen[0].time.tzinfo is not None and seen[-1].kind == "run_finished"
    assert seen[0].no_such_key is None
    with pytest.raises(mandelbox.RunCancelled) as raised:
        run.result()
    assert raised.value.result is not None
    assert run.done()
    with pytest.raises(mandelbox.MandelboxError, match="read once"):
        run.events()
    short = workflow({}, n=50)
    assert mandelbox.run(short, **project.options, resume=True).tasks[1].n_done == 50


def test_a_result_can_be_waited_for(project: Project) -> None:
    run = mandelbox.start(workflow({"sleep_ms": 500}), **project.options)
    with pytest.raises(TimeoutError):
        run.result(timeout=0.05)
    assert not run.done()
    assert run.result(timeout=60).tasks[1].n_done == 3


def test_an_exception_in_on_event_cancels_the_run(project: Project) -> None:
    def on_event(event: Event) -> None:
        if event.kind == "call_started" and event.task == 1:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        mandelbox.run(workflow({"sleep_ms": 5000}), **project.options, on_event=on_event)
    assert mandelbox.status(project.folder / "work").error == "cancelled"


def test_leaving_the_block_by_an_exception_cancels(project: Project) -> None:
    with pytest.raises(ZeroDivisionError):
        with mandelbox.start(workflow({"sleep_ms": 60_000}), **project.options):
            wait_until(lambda: project.n_events("call_started") >= 2)
            raise ZeroDivisionError
    assert mandelbox.status(project.folder / "work").error == "cancelled"


def test_a_slow_reader_does_not_slow_the_run(project: Project) -> None:
    started = time.monotonic()
    with mandelbox.start(workflow({}, n=300), **project.options) as run:
        for index, event in enumerate(run.events()):
            if index == 3:
                wait_until(lambda: project.n_events("run_finished") == 1)
                assert time.monotonic() - started < 60
    assert index == len(project.events()) - 1, "nothing was dropped"


def test_many_events_are_read_in_seconds(tmp_path: Path) -> None:
    from mandelbox._events import tail

    line = (
        '{"seq":%d,"time":"2026-11-28T21:23:26.003920Z","event":"call_finished","task":9,'
        '"call_index":0,"item":"plate.zarr/B/03/0","attempt":1,"outcome":"succeeded",'
        '"output":{"a":1},"wall_time_s":0.257998,"peak_memory_bytes":6031568,"stdout_bytes":0,'
        '"stderr_bytes":0,"session":0,"crc":"aa3fbfec"}\n'
    )
    path = tmp_path / "events"
    path.write_text("".join(line % index for index in range(100_000)))
    # Time of the CPU, because other tests can run at the same time.
    started = time.process_time()
    n = sum(event.kind == "call_finished" for event in tail(str(path), lambda: True))
    elapsed = time.process_time() - started
    print(f"100,000 events in {elapsed:.2f} s")
    assert n == 100_000 and elapsed < 3


def test_async_runs_go_on_together(project: Project) -> None:
    async def both() -> list[mandelbox.Result]:
        seen: list[str] = []
        runs = [
            mandelbox.run_async(
                workflow({"sleep_ms": 300}),
                output=project.folder / f"out{index}",
                isolation="thread",
                on_event=lambda event: seen.append(event.kind),
            )
            for index in range(3)
        ]
        results = await asyncio.gather(*runs)
        assert seen.count("run_finished") == 3
        return results

    results = asyncio.run(both())
    assert len({result.work_dir for result in results}) == 3


def test_cancelling_the_task_of_asyncio_saves_the_records(project: Project) -> None:
    async def cancelled() -> None:
        running = asyncio.create_task(
            mandelbox.run_async(workflow({"sleep_ms": 60_000}), **project.options)
        )
        while project.n_events("call_started") < 2:
            await asyncio.sleep(0.02)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(cancelled())
    assert mandelbox.status(project.folder / "work").error == "cancelled"


def test_async_events(project: Project) -> None:
    async def kinds() -> list[str]:
        run = mandelbox.start(workflow({}), **project.options)
        return [event.kind async for event in run]

    assert asyncio.run(kinds())[-1] == "run_finished"


SCRIPT = """
    import sys, mandelbox
    sys.path.insert(0, {tests!r})
    from tests.conftest import workflow
    options = dict(input="in", output="out", work_dir="work", isolation={isolation!r}, jobs=2)
    {body}
"""


def script(project: Project, body: str, isolation: str = "process") -> subprocess.Popen[bytes]:
    tests = str(Path(__file__).resolve().parents[1])
    text = textwrap.dedent(SCRIPT).format(tests=tests, body=body, isolation=isolation)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", text],
        cwd=project.folder,
        env=environment,
        start_new_session=True,
        stderr=subprocess.PIPE,
    )


def processes_of(folder: Path) -> list[int]:
    """Return the processes of the program that have this folder in their command lines."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(folder) in words and b"run\0" in words:
                found.append(int(entry.name))
    return found


def children_of(pid: int) -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = (entry / "stat").read_text().rsplit(")", 1)[1].split()[1]
            except OSError:
                continue
            if int(parent) == pid:
                found += [int(entry.name), *children_of(int(entry.name))]
    return found


def test_a_killed_python_leaves_no_process_and_a_resumable_run(project: Project) -> None:
    body = "mandelbox.run(workflow({'sleep_ms': 1000}, n=20), **options)"
    python = script(project, body)
    wait_until(lambda: project.n_events("call_finished") >= 2)
    left = children_of(python.pid)
    assert left
    python.kill()
    python.wait()
    wait_until(lambda: not any(is_running(pid) for pid in left), 20)
    n_before = sum(event.get("outcome") == "succeeded" for event in project.events())
    assert 0 < n_before < 21
    result = mandelbox.run(workflow({"sleep_ms": 1000}, n=20), **project.options, resume=True, jobs=16)
    assert result.tasks[1].n_done == 20 and result.tasks[1].n_reused >= 1


def test_ctrl_c_saves_the_records(project: Project) -> None:
    body = "mandelbox.run(workflow({'sleep_ms': 60_000}), **options)"
    python = script(project, body)
    wait_until(lambda: project.n_events("call_started") >= 3)
    python.send_signal(signal.SIGINT)
    _, stderr = python.communicate(timeout=30)
    assert b"KeyboardInterrupt" in stderr
    assert mandelbox.status(project.folder / "work").error == "cancelled"


def test_a_run_is_cancelled_at_the_end_of_the_interpreter(project: Project) -> None:
    body = (
        "run = mandelbox.start(workflow({'sleep_ms': 60_000}), **options)\n"
        "next(event for event in run.events() if event.kind == 'call_started' and event.task == 1)"
    )
    python = script(project, body)
    _, stderr = python.communicate(timeout=60)
    assert stderr == b""
    assert mandelbox.status(project.folder / "work").error == "cancelled"
    assert not processes_of(project.folder)


def _in_child(run: mandelbox.Run | None, queue: Any) -> None:
    try:
        if run is not None:
            run.done()
        queue.put("no error")
    except mandelbox.MandelboxError as error:
        queue.put(str(error))


def _runs(options: dict[str, Any], queue: Any) -> None:
    queue.put(mandelbox.run(workflow({}), **options).tasks[1].n_done)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_runs_of_its_own(project: Project) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    run = mandelbox.start(workflow({"sleep_ms": 500}), **project.options)
    child = context.Process(target=_in_child, args=(run, queue))
    child.start()
    assert "was started by process" in queue.get(timeout=30)
    child.join(30)
    assert run.result().tasks[1].n_done == 3, "the child has not ended it"


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_processes_of_multiprocessing_run_workflows(project: Project, method: str) -> None:
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    mandelbox.run(workflow({}), **{**project.options, "work_dir": "first"})
    child = context.Process(target=_runs, args=(project.options, queue))
    child.start()
    assert queue.get(timeout=60) == 3
    child.join(30)
    assert child.exitcode == 0


def test_runs_of_a_process_share_the_machine(project: Project) -> None:
    def run(index: int) -> None:
        options = {**project.options, "work_dir": f"work{index}", "output": f"out{index}"}
        results.append(mandelbox.run(workflow({"sleep_ms": 200}), **options, jobs=1))

    results: list[mandelbox.Result] = []
    threads = [threading.Thread(target=run, args=(index,)) for index in range(3)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    assert time.monotonic() - started > 9 * 0.2, "one call at a time"


def test_version_2(project: Project) -> None:
    imaging = EXAMPLES / "imaging-v2"
    options: dict[str, Any] = {
        "read": EXAMPLES / "imaging" / "images",
        "set": {"0.image_dir": EXAMPLES / "imaging" / "images"},
        "tasks": imaging,
        "isolation": "thread",
    }
    result = mandelbox.run(
        imaging / "workflow.json",
        zarr_dir=project.folder / "data",
        work_dir=project.folder / "work",
        last_task=1,
        **options,
    )
    assert result.dataset is not None and result.output == project.folder / "data"
    n_images = len(result.images)
    assert n_images > 1 and all("zarr_url" in image for image in result.images)
    well = result.images[0]["attributes"]["well"]
    n_of_well = sum(image["attributes"]["well"] == well for image in result.images)
    plan = mandelbox.plan(
        imaging / "workflow.json",
        dataset=project.folder / "work" / "dataset.json",
        first_task=2,
        attribute_filters={"well": [well]},
        **options,
    )
    assert 0 < n_of_well < n_images and str(n_of_well) in plan.tasks[0].calls


def test_check_and_describe() -> None:
    found = mandelbox.check(module("swiss"))
    assert found.ok and found.what == "module" and found.facts["module"]["kind"] == "command_p1"
    assert not mandelbox.check(__file__).ok
    assert mandelbox.Task(module("otsu-rust-typed")).describe()["task"]["name"]


def test_signatures_list_the_options() -> None:
    import inspect

    for function in (mandelbox.run, mandelbox.start, mandelbox.run_async, mandelbox.plan):
        parameters = inspect.signature(function).parameters
        assert {"workflow", "output", "zarr_dir", "resume", "memory"} <= set(parameters)
    assert sorted(set(mandelbox.__all__) - set(dir(mandelbox))) == []
