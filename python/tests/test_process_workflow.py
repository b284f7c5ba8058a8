"""Fractal's function: its keywords, its results, its exceptions, its files."""

from __future__ import annotations

import asyncio
import copy
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import mandelbox

from .conftest import Project, task, workflow

KEYWORDS: dict[str, Any] = {
    "input_metadata": {},
    "input_history": [],
    "logger_name": "job",
}


def run(project: Project, document: Any, **more: Any) -> dict[str, Any]:
    """Run a workflow in a work directory outside of its output."""
    folders = {"input_paths": ["in"], "output_path": "out", "workflow_dir_local": "work"}
    keywords = {**KEYWORDS, **folders, **more}
    return mandelbox.process_workflow_sync(workflow=document, **keywords)


def test_a_document_and_an_object_have_the_same_result(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    document = workflow({"metadiff": {"seen": 1}})
    before = copy.deepcopy(document)
    metadata = {"pixel_size": 0.30000000000000004}
    with caplog.at_level(logging.DEBUG, "job"):
        result = run(project, document, input_metadata=metadata)
    assert document == before and metadata == {"pixel_size": 0.30000000000000004}
    assert result["metadata"]["well"] == ["c0", "c1", "c2"]
    assert result["metadata"]["pixel_size"] == 0.30000000000000004
    assert [item["status"] for item in result["history"]] == ["done", "done"]
    texts = [record.getMessage() for record in caplog.records if record.name == "job"]
    assert texts.count('SUBMIT 1-th task (name="second")') == 1
    assert (Path("work") / "1_second" / "1_par_c0.args.json").is_file()

    entries = [
        SimpleNamespace(**{**e, "task": SimpleNamespace(**e["task"])}) for e in before["task_list"]
    ]
    other = run(
        project, SimpleNamespace(name="test", task_list=entries), workflow_dir_local="other"
    )
    assert other["metadata"]["well"] == ["c0", "c1", "c2"]


def test_a_part_of_the_tasks(project: Project) -> None:
    result = run(project, workflow({}), last_task_index=0)
    assert len(result["history"]) == 1
    again = run(
        project,
        workflow({}),
        first_task_index=1,
        input_metadata=result["metadata"],
        input_history=result["history"],
        workflow_dir_local="again",
    )
    assert [item["workflowtask"]["order"] for item in again["history"]] == [0, 1]


def test_exceptions_are_those_of_fractal(project: Project) -> None:
    with pytest.raises(mandelbox.TaskExecutionError, match="^why$") as failed:
        run(project, workflow({"exit": 3, "stderr": "why"}))
    error = failed.value
    assert (error.workflow_task_id, error.workflow_task_order, error.task_name) == (11, 1, "second")
    with pytest.raises(mandelbox.JobExecutionError) as ended:
        run(project, workflow({"signal": "x"}), workflow_dir_local="trap")
    assert ended.value.info and ended.value.assemble_error()


def test_a_command_that_is_no_module(project: Project) -> None:
    document = workflow({})
    document["task_list"][1]["task"]["command"] = "/usr/bin/true --flag"
    with pytest.raises(
        mandelbox.TaskExecutionError, match="make sure that it is executable"
    ) as raised:
        run(project, document)
    assert (raised.value.workflow_task_id, raised.value.task_name) == (11, "second")
    assert not Path("work").exists(), "nothing was run"


def test_a_missing_component_list(project: Project) -> None:
    words = r"parallelization_level \('well'\) is missing in metadata keys"
    with pytest.raises(RuntimeError, match=words) as before:
        run(project, {"name": "test", "task_list": [task(0, "first", {}, "well")]})
    with pytest.raises(RuntimeError, match=words) as later:
        first = task(0, "list", {"metadiff": {"plate": ["p"]}})
        run(project, {"name": "test", "task_list": [first, task(1, "second", {}, "well")]})
    for raised in (before, later):
        assert type(raised.value) is RuntimeError, "no class of its own, as in Fractal"


def test_a_work_directory_in_the_output_receives_the_files(project: Project) -> None:
    work = Path("out/job")
    work.mkdir()
    (work / "workflow.log").write_text("the server's own line\n")
    result = run(
        project, workflow({"stderr": "said"}), input_paths=["out"], workflow_dir_local=work
    )
    assert len(result["history"]) == 2
    assert (work / "workflow.log").read_text() == "the server's own line\n"
    assert (work / "1_second" / "1_par_c2.err").read_text() == "said"
    assert (work / "metadata.json").is_file() and (work / "history.json").is_file()


def test_keywords(project: Project) -> None:
    with pytest.raises(TypeError, match="unknown"):
        run(project, workflow({}), unknown=1)
    with pytest.raises(NotImplementedError, match="different directories"):
        run(project, workflow({}), workflow_dir_remote="elsewhere")
    run(project, workflow({}), workflow_dir_remote="work", slurm_user="nobody", worker_init=None)


def test_cancelling_the_task_of_asyncio_cancels_the_run(project: Project) -> None:
    async def cancelled() -> None:
        folders = {"input_paths": ["in"], "output_path": "out", "workflow_dir_local": "work"}
        keywords = {**KEYWORDS, **folders}
        document = workflow({"sleep_ms": 60_000})
        job = asyncio.create_task(mandelbox.process_workflow(workflow=document, **keywords))
        while project.n_events("call_started") < 2:
            await asyncio.sleep(0.05)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job

    asyncio.run(cancelled())
    assert project.n_events("run_finished") == 1
