"""Options of runs, and the command line that they stand for."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Union

from . import _json, _share
from .errors import DocumentsError, Problem

if TYPE_CHECKING:
    from typing import TypeAlias

PathLike: TypeAlias = "Union[str, os.PathLike[str]]"
#: A workflow file, or the document itself.
Workflow: TypeAlias = "Union[PathLike, Mapping[str, Any]]"
Progress: TypeAlias = 'Union[bool, Literal["auto"]]'


class Options(TypedDict, total=False):
    """Options of :func:`mandelbox.plan`, and of all functions that run workflows.

    Attributes:
        output: Folder that tasks write to; required for Fractal v1.
        input: Folders that tasks read (v1).
        metadata: Metadata of the dataset at the start (v1).
        history: History of the dataset at the start (v1).
        input_type: Type of the input dataset, compared with the first task's (v1).
        output_type: Type of the output dataset, compared with the last task's (v1).
        zarr_dir: Folder of a new dataset (v2).
        dataset: Dataset to start from: a document, or ``dataset.json`` of an earlier run (v1:
            ``result.json``).
        type_filters: Types of the images to process (v2).
        attribute_filters: Values of attributes of the images to process (v2).
        status_filter: Statuses of the images to process: ``done``, ``failed``, ``unset`` (v2).
        read: Further folders that all tasks can read.
        tasks: Task packages.
        folder: Folder of a workflow that is given as a document: commands in it are relative to it.
        set: Arguments that replace those of the workflow, by ``"TASK.KEY"``.
        only: Patterns of the items of a trial run.
        work_dir: Folder for the records; default: a new one below ``mandelbox-runs``.
        first_task: First task to run: position from 0, or name.
        last_task: Last task to run, inclusive.
        jobs: Calls that run at a time; default: the number of CPUs.
        parallel_tasks_per_job: Calls of one task that run at a time.
        memory: Memory limit of a call: bytes, or text such as ``"2GiB"``.
        timeout: Time limit of a call: seconds, text such as ``"10m"``, or a timedelta.
        policy: Policy file (TOML).
        python: Environment whose interpreter runs scripts (see :mod:`mandelbox.env`).
        isolation: ``"process"`` (default) or ``"thread"``.
        deterministic: True for fixed clocks and random numbers.
        cache: False to compile modules from scratch.
        keep_going: True to run all calls of a task, even if one fails.
        resume: True to resume the run in ``work_dir``.
        rerun_from: Task from which a resumed run reuses no result.
        retries: How often a call is retried that ends with a JobExecutionError.
        task_files: Calls whose files are kept: ``"all"``, ``"failed"`` or ``"none"``.
    """

    output: PathLike | None
    input: PathLike | Sequence[PathLike]
    metadata: Mapping[str, Any] | None
    history: Sequence[Mapping[str, Any]] | None
    input_type: str | None
    output_type: str | None
    zarr_dir: PathLike | None
    dataset: PathLike | Mapping[str, Any] | None
    type_filters: Mapping[str, bool]
    attribute_filters: Mapping[str, Any]
    status_filter: Sequence[str]
    read: PathLike | Sequence[PathLike]
    tasks: PathLike | Sequence[PathLike]
    folder: PathLike | None
    set: Mapping[str, Any]
    only: str | Sequence[str]
    work_dir: PathLike | None
    first_task: int | str | None
    last_task: int | str | None
    jobs: int | None
    parallel_tasks_per_job: int | None
    memory: int | str | None
    timeout: float | str | timedelta | None
    policy: PathLike | None
    python: PathLike | None
    isolation: Literal["process", "thread"]
    deterministic: bool
    cache: bool
    keep_going: bool
    resume: bool
    rerun_from: int | str | None
    retries: int
    task_files: Literal["all", "failed", "none"]


#: Default of each option, in the order of the signature.
DEFAULTS: Options = {
    "output": None,
    "input": (),
    "metadata": None,
    "history": None,
    "input_type": None,
    "output_type": None,
    "zarr_dir": None,
    "dataset": None,
    "type_filters": {},
    "attribute_filters": {},
    "status_filter": (),
    "read": (),
    "tasks": (),
    "folder": None,
    "set": {},
    "only": (),
    "work_dir": None,
    "first_task": None,
    "last_task": None,
    "jobs": None,
    "parallel_tasks_per_job": None,
    "memory": None,
    "timeout": None,
    "policy": None,
    "python": None,
    "isolation": "process",
    "deterministic": False,
    "cache": True,
    "keep_going": False,
    "resume": False,
    "rerun_from": None,
    "retries": 0,
    "task_files": "all",
}


class Arguments:
    """Arguments of ``mandelbox run`` for a workflow and options.

    Attributes:
        words: The arguments.
        stdin: The workflow document for stdin, or None.
        folder: Folder to start the program in, or None.
    """

    def __init__(self, workflow: Workflow, options: Mapping[str, Any], files: str) -> None:
        """Build the arguments.

        Args:
            workflow: The workflow.
            options: Options of the run.
            files: Folder for documents that the program reads.

        Raises:
            DocumentsError: A value has the wrong type.
            TypeError: Unknown options.
        """
        self._files = files
        self._options = {**DEFAULTS, **options}
        unknown = sorted(set(options) - set(DEFAULTS))
        if unknown:
            raise TypeError(f"unknown option {_suggest(unknown[0])}")
        self.words: list[str] = []
        self.stdin: bytes | None = None
        self.folder: str | None = None
        self._add_workflow(workflow)
        self._add_dataset()
        self._add_tasks()
        self._add_limits()
        self._add_run()

    def _add_workflow(self, workflow: Workflow) -> None:
        folder = self._options["folder"]
        if isinstance(workflow, Mapping):
            self.stdin = _json.dumps(workflow, "workflow").encode()
            self.folder = absolute(folder) if folder is not None else None
            self.words.append("-")
            return
        if folder is not None:
            text = "is for workflows that are given as documents; a file has its own folder"
            raise DocumentsError([Problem(text, location="folder")])
        self.words.append(absolute(workflow))

    def _add_dataset(self) -> None:
        options = self._options
        self._path("--output", options["output"])
        self._paths("--input", options["input"])
        self._document("--metadata", options["metadata"])
        self._document("--history", options["history"])
        self._text("--input-type", options["input_type"])
        self._text("--output-type", options["output_type"])
        self._path("--zarr-dir", options["zarr_dir"])
        if isinstance(options["dataset"], Mapping):
            self._document("--dataset", options["dataset"])
        else:
            self._path("--dataset", options["dataset"])
        for key, value in options["type_filters"].items():
            self._text("--type-filter", f"{key}={'true' if value else 'false'}")
        for key, values in options["attribute_filters"].items():
            if isinstance(values, str) or not isinstance(values, Sequence):
                values = [values]
            texts = [_json.dumps(value, f"attribute_filters[{key!r}]") for value in values]
            self._text("--attribute-filter", f"{key}={','.join(texts)}")
        if options["status_filter"]:
            self._text("--status-filter", ",".join(texts_of(options["status_filter"])))
        self._paths("--read", options["read"])

    def _add_tasks(self) -> None:
        options = self._options
        self._paths("--tasks", options["tasks"])
        for target, value in options["set"].items():
            self._text("--set", f"{target}={_json.dumps(value, f'set[{target!r}]')}")
        for pattern in texts_of(options["only"]):
            self._text("--only", pattern)
        self._text("--first-task", options["first_task"])
        self._text("--last-task", options["last_task"])

    def _add_limits(self) -> None:
        self.words += limit_words(self._options)
        if self._options["parallel_tasks_per_job"] is not None:
            config = {"parallel_tasks_per_job": self._options["parallel_tasks_per_job"]}
            self._document("--local-config", config)

    def _add_run(self) -> None:
        options = self._options
        self._text("--task-files", options["task_files"])
        if options["retries"]:
            self._text("--retries", options["retries"])
        for option, is_set in (
            ("--keep-going", options["keep_going"]),
            ("--resume", options["resume"]),
        ):
            if is_set:
                self.words.append(option)
        self._text("--rerun-from", options["rerun_from"])
        if options["resume"] and options["work_dir"] is None:
            text = "needs `work_dir`, the folder of the run to resume"
            raise DocumentsError([Problem(text, location="resume")])

    def _text(self, option: str, value: Any) -> None:
        if value is not None:
            # A value may begin with a dash.
            self.words.append(f"{option}={value}")

    def _path(self, option: str, value: Any) -> None:
        if value is not None:
            self._text(option, absolute(value))

    def _paths(self, option: str, value: Any) -> None:
        values = [value] if isinstance(value, (str, os.PathLike)) else value
        for path in values:
            self._path(option, path)

    def _document(self, option: str, value: Any) -> None:
        if value is None:
            return
        name = option.lstrip("-").replace("-", "_")
        path = os.path.join(self._files, f"{name}.json")
        text = _json.dumps(value, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        self._text(option, path)


def limit_words(options: Mapping[str, Any]) -> list[str]:
    """Return the arguments that all commands that run calls have in common."""
    words = []
    if options["jobs"] is not None:
        words.append(f"--jobs={options['jobs']}")
    if options["memory"] is not None:
        words.append(f"--memory={options['memory']}")
    if options["timeout"] is not None:
        words.append(f"--timeout={time_text(options['timeout'])}")
    if options["policy"] is not None:
        words.append(f"--policy={absolute(options['policy'])}")
    if options["python"] is not None:
        words.append(f"--python={absolute(options['python'])}")
    words.append(f"--isolation={options['isolation']}")
    if options["deterministic"]:
        words.append("--deterministic")
    if not options["cache"]:
        words.append("--no-cache")
    return words


def time_text(value: float | str | timedelta) -> str:
    """Return a duration as the program reads it; numbers are seconds."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, str):
        return value
    return f"{round(value * 1e6)}us"


def absolute(path: PathLike) -> str:
    """Return an absolute path, without following links.

    Raises:
        TypeError: It is no path.
    """
    return os.path.abspath(os.path.expanduser(os.fsdecode(os.fspath(path))))


def texts_of(value: str | Sequence[str]) -> list[str]:
    """Return one or more texts as a list."""
    return [value] if isinstance(value, str) else list(value)


def new_work_dir(workflow: Workflow) -> Path:
    """Create a new folder for the records of a run, as the program does by default."""
    from datetime import datetime, timezone

    time = datetime.now(timezone.utc).strftime("%Y%m%d_%H%M%S")
    base = Path.cwd() / "mandelbox-runs" / f"{_slug(_name_of(workflow))}_{time}"
    base.parent.mkdir(parents=True, exist_ok=True)
    folder, number = base, 1
    while True:
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1
            folder = base.with_name(f"{base.name}_{number}")


def _name_of(workflow: Workflow) -> str:
    if isinstance(workflow, Mapping):
        return str(workflow.get("name", "workflow"))
    path = Path(os.fspath(workflow))
    try:
        document = json.loads(path.read_bytes())
        return str(document["name"])
    except (OSError, ValueError, KeyError, TypeError):
        # The program reports what is wrong with it.
        return path.stem


def _slug(name: str) -> str:
    text = "".join(char if char.isascii() and char.isalnum() else "_" for char in name.lower())
    return text.strip("_")[:80] or "workflow"


def _suggest(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, DEFAULTS, n=1)
    return f"`{name}`; did you mean `{near[0]}`?" if near else f"`{name}`"


def files_folder() -> str:
    """Create a folder for the documents and the output of one process of the program."""
    return tempfile.mkdtemp(prefix="mandelbox-")


def host_words() -> list[str]:
    """Return the arguments that bind a run to this process."""
    return [
        "--format=json",
        f"--die-with-parent={os.getpid()}",
        f"--share={_share.folder()}",
    ]
