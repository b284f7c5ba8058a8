"""pytest plugin for fractal-server's own tests: mandelbox is the local backend.

    pytest -p upstream TESTS

The registration of the backend and the commands of the tasks are replaced, and nothing else. The
variable ``TWINS`` is the path of the module whose subcommands do what the tasks of the tests do. Tests
of version 1 that call functions inside of the backend get adapters over ``process_workflow``.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import traceback
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import mandelbox.fractal
from mandelbox._process_workflow import document_of

TWINS = os.path.abspath(os.environ["TWINS"])
#: Subcommands of the module, by the scripts of the tests (version 1).
TWIN_OF = {
    "dummy.py": "dummy",
    "dummy_parallel.py": "dummy_parallel",
    "non_python_task_issue189.sh": "copy_args",
    "non_python_task_issue878.sh": "null",
    "echo_sleep_task.sh": "nothing",
}
#: Commands of the tests that are run as modules (version 2).
V2_COMMANDS = ("true", "false")
#: Runs and calls that the tests have made, for the summary.
COUNTS: Counter[str] = Counter()


def pytest_configure(config: Any) -> None:
    """Replace the backend before the tests are imported."""
    mandelbox.fractal.install()
    if mandelbox.fractal._module().__name__.endswith("v1"):
        install_v1()
    else:
        install_v2()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print how much of the tests reached mandelbox."""
    counts = ", ".join(f"{count} {what}" for what, count in sorted(COUNTS.items()))
    terminalreporter.write_line(f"mandelbox: {counts or 'nothing was run'}")


def install_v1() -> None:
    """Run twins in place of the tasks of version 1."""
    from fractal_server.app.runner.v1 import _common, _local
    from mandelbox.fractal import v1

    process_workflow = v1.process_workflow

    async def with_twins(*, workflow: Any, **rest: Any) -> dict[str, Any]:
        COUNTS["workflows"] += 1
        document, commands = twins_of(document_of(workflow))
        result: dict[str, Any] = await process_workflow(workflow=document, **rest)
        for item in result["history"]:
            task = item["workflowtask"]["task"]
            task["command"] = commands.get(task["command"], task["command"])
        return result

    v1._register(with_twins)

    def execute_tasks(
        *,
        task_list: list[Any],
        task_pars: Any,
        workflow_dir_local: Path,
        logger_name: str | None = None,
        submit_setup_call: Any = None,
        executor: Any = None,
        workflow_dir_remote: Path | None = None,
    ) -> Any:
        more: dict[str, Any] = {}
        if submit_setup_call is not None:
            folder = workflow_dir_local
            try:
                setup = submit_setup_call(
                    wftask=task_list[0], workflow_dir_local=folder, workflow_dir_remote=folder
                )
                limit = setup["local_backend_config"].parallel_tasks_per_job
                more["parallel_tasks_per_job"] = limit
            except Exception as error:
                text = "".join(traceback.format_exception(error))
                raise RuntimeError(
                    f"{type(error)} error in {submit_setup_call=}\nOriginal traceback:\n{text}"
                ) from error
        job = _local.process_workflow(
            workflow={"name": "wf", "task_list": [entry.model_dump() for entry in task_list]},
            input_paths=task_pars.input_paths,
            output_path=task_pars.output_path,
            input_metadata=task_pars.metadata,
            input_history=task_pars.history,
            logger_name=logger_name,
            workflow_dir_local=workflow_dir_local,
        )
        with mock.patch.object(v1, "options", lambda: {**mandelbox.fractal.options(), **more}):
            result = asyncio.run(job)
        return type(task_pars)(
            input_paths=[task_pars.output_path], output_path=task_pars.output_path, **result
        )

    def call_single_task(*, wftask: Any, task_pars: Any, **rest: Any) -> Any:
        return execute_tasks(task_list=[wftask], task_pars=task_pars, **rest)

    def call_parallel_task(*, wftask: Any, task_pars_depend: Any, **rest: Any) -> Any:
        return execute_tasks(task_list=[wftask], task_pars=task_pars_depend, **rest)

    for function in (execute_tasks, call_single_task, call_parallel_task):
        setattr(_common, function.__name__, function)


def twins_of(document: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Replace the commands of a workflow. Returns it, and the commands by those of their twins."""
    commands = {}
    for entry in document["task_list"]:
        command = entry["task"]["command"]
        twin = TWIN_OF.get(Path(shlex.split(command)[-1]).name)
        if twin is not None:
            entry["task"]["command"] = f"{shlex.quote(TWINS)} {twin}"
            commands[entry["task"]["command"]] = command
    return document, commands


def install_v2() -> None:
    """Run twins in place of `true` and `false` of version 2."""
    from fractal_server.runner.executors.local import runner as local
    from mandelbox.fractal import v2

    run_single_task, multisubmit = v2.run_single_task, v2.MandelboxRunner.multisubmit

    def twin_of(command: str, n_calls: int) -> str:
        if command in V2_COMMANDS:
            command = f"{shlex.quote(TWINS)} {command}"
        COUNTS["calls in the sandbox" if v2.is_module(command) else "other calls"] += n_calls
        return command

    def run_with_twins(*, base_command: str, **rest: Any) -> Any:
        return run_single_task(base_command=twin_of(base_command, 1), **rest)

    def multisubmit_with_twins(self: Any, *, base_command: str, **rest: Any) -> Any:
        command = twin_of(base_command, 0)
        if v2.is_module(command):
            twin_of(command, len(rest["list_parameters"]))
        return multisubmit(self, base_command=command, **rest)

    local.run_single_task = run_with_twins
    v2.MandelboxRunner.multisubmit = multisubmit_with_twins
