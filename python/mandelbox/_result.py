"""Results, plans and states of runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import _json
from .errors import Problem

__all__ = ["Check", "PlannedTask", "Plan", "Result", "Status", "TaskSummary"]

_EVENTS = "events.jsonl"
_REPORT = "report.html"
_RESULT = "result.json"
#: Tables in a notebook have at most so many rows.
_MAX_ROWS = 200
#: Images larger than this are linked to and not shown.
_MAX_IMAGE_BYTES = 4 << 20


@dataclass(frozen=True)
class TaskSummary:
    """State of one task of a run.

    Attributes:
        order: Order of the task in the workflow.
        name: Name of the task.
        state: ``done``, ``failed``, ``running`` or ``to_do``.
        n_calls: Number of its calls.
        n_done: Calls that succeeded, with those that a resumed run reused.
        n_failed: Calls that failed.
        n_reused: Calls whose results an earlier run had.
        longest_call_s: Wall time of its longest call in seconds, or None.
        peak_memory_bytes: Largest memory of one of its calls in bytes, or None.
        facts: All that ``mandelbox status --format json`` reports about it.
    """

    order: int
    name: str
    state: str
    n_calls: int | None
    n_done: int
    n_failed: int
    n_reused: int
    longest_call_s: float | None
    peak_memory_bytes: int | None
    facts: dict[str, Any] = field(repr=False, default_factory=dict)

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> TaskSummary:
        """Read a task of ``mandelbox status --format json``."""
        return cls(
            order=facts["task"],
            name=facts["name"],
            state=facts["state"],
            n_calls=facts.get("n_calls"),
            n_done=facts.get("n_done") or 0,
            n_failed=facts.get("n_failed") or 0,
            n_reused=facts.get("n_reused") or 0,
            longest_call_s=facts.get("longest_call_s"),
            peak_memory_bytes=facts.get("peak_memory_bytes"),
            facts=dict(facts),
        )


@dataclass(frozen=True)
class Status:
    """State of a run in a work directory.

    Attributes:
        work_dir: The work directory.
        state: ``running``, ``done``, ``failed`` or ``killed``.
        error: Kind of the error of a failed run, or None.
        workflow: Name of the workflow.
        tasks: Tasks of the run.
        warnings: Warnings of the run.
        facts: All that ``mandelbox status --format json`` reports.
    """

    work_dir: Path
    state: str
    error: str | None
    workflow: str | None
    tasks: list[TaskSummary]
    warnings: list[str]
    facts: dict[str, Any] = field(repr=False, default_factory=dict)

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Status:
        """Read the object of ``mandelbox status --format json``."""
        return cls(
            work_dir=Path(facts["work_dir"]),
            state=facts["state"],
            error=facts.get("error"),
            workflow=facts.get("workflow"),
            tasks=[TaskSummary.from_facts(task) for task in facts["tasks"]],
            warnings=list(facts.get("warnings") or ()),
            facts=dict(facts),
        )

    def _repr_html_(self) -> str:
        from ._html import status_html

        return status_html(self, _MAX_ROWS)


@dataclass(frozen=True)
class PlannedTask:
    """A task of a plan.

    Attributes:
        order: Order of the task in the workflow.
        name: Name of the task.
        module: Path of its module.
        sha256: SHA-256 of the module, in hex.
        calls: Description of its calls, as far as they are known.
        max_parallel: Calls that run at a time at most, or None.
        memory_bytes: Memory limit of a call in bytes.
        wall_time_s: Time limit of a call in seconds, or None.
        args: Arguments, with their defaults.
    """

    order: int
    name: str
    module: str
    sha256: str
    calls: str
    max_parallel: int | None
    memory_bytes: int
    wall_time_s: float | None
    args: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """A run that was checked and not started. Nothing was written.

    Attributes:
        workflow: Name of the workflow.
        work_dir: Work directory that the run would have.
        output: Folder that its tasks would write to.
        folders: Folders that its tasks can access, and True for those that they can write to.
        tasks: Tasks of the run.
        warnings: Warnings about documents, options and folders.
    """

    workflow: str
    work_dir: Path
    output: Path
    folders: dict[str, bool]
    tasks: list[PlannedTask]
    warnings: list[Problem]

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Plan:
        """Read the answer of ``run --dry-run --format json``."""
        keys = PlannedTask.__dataclass_fields__
        return cls(
            workflow=facts["workflow"],
            work_dir=Path(facts["work_dir"]),
            output=Path(facts["output"]),
            folders={folder["path"]: folder["writable"] for folder in facts["folders"]},
            tasks=[PlannedTask(**{key: task[key] for key in keys}) for task in facts["tasks"]],
            warnings=problems_of(facts["warnings"]),
        )

    def _repr_html_(self) -> str:
        from ._html import plan_html

        return plan_html(self, _MAX_ROWS)


@dataclass(frozen=True)
class Check:
    """Findings about a workflow, a module, a task package or a dataset.

    Attributes:
        what: Kind of the checked thing, such as ``module`` or ``workflow``.
        ok: True if there is no problem.
        problems: Every problem.
        warnings: Warnings.
        facts: All that ``mandelbox check --format json`` reports.
    """

    what: str
    ok: bool
    problems: list[Problem]
    warnings: list[Problem]
    facts: dict[str, Any] = field(repr=False, default_factory=dict)

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Check:
        """Read the object of ``mandelbox check --format json``."""
        return cls(
            what=facts["what"],
            ok=facts["ok"],
            problems=problems_of(facts["problems"]),
            warnings=problems_of(facts["warnings"]),
            facts=dict(facts),
        )


@dataclass(frozen=True)
class Result:
    """Result of a run, and where its files are.

    Attributes:
        work_dir: Folder with the records of the run.
        output: Folder that its tasks wrote to; for Fractal v2 the ``zarr_dir``.
        metadata: Metadata of the dataset after the last successful task (Fractal v1).
        history: History of the dataset (Fractal v1).
        dataset: The dataset document (Fractal v2), or None.
        tasks: Tasks of the run.
        warnings: Warnings of the run.
    """

    work_dir: Path
    output: Path
    metadata: dict[str, Any] = field(repr=False)
    history: list[dict[str, Any]] = field(repr=False)
    dataset: dict[str, Any] | None = field(repr=False)
    tasks: list[TaskSummary]
    warnings: list[str]

    @property
    def images(self) -> list[dict[str, Any]]:
        """Images of the dataset (Fractal v2), else an empty list."""
        return list((self.dataset or {}).get("images", ()))

    def calls(self, *, all_attempts: bool = False) -> list[dict[str, Any]]:
        """Return a flat record of each call, for ``pandas.DataFrame``.

        Keys: ``order`` and ``task`` (name) of the task, ``component`` (the item: in v2 an image),
        ``call_index``, ``attempt``, ``outcome``, ``exit_code``, ``message``, ``started`` and
        ``ended`` (RFC 3339), ``wall_time_s``, ``peak_memory_bytes``, ``stdout_bytes``,
        ``stderr_bytes``. Calls of all sessions of a resumed run are included.

        Args:
            all_attempts: True for every attempt of a call, False for the last one only.

        Raises:
            OSError: The event log cannot be read.

        Example:
            >>> import mandelbox, pandas as pd
            >>> result = mandelbox.run("workflow.json", output="results")  # doctest: +SKIP
            >>> pd.DataFrame(result.calls()).groupby("task")["wall_time_s"].sum()  # doctest: +SKIP
        """
        return read_calls(self.work_dir, all_attempts=all_attempts)

    def report(self) -> Path:
        """Return the path of the report, a page for any browser.

        Raises:
            FileNotFoundError: The run was too large for a report, or its files were removed.
        """
        path = self.work_dir / _REPORT
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: no report; create it with `mandelbox report {self.work_dir}`"
            )
        return path

    def contact_sheets(self) -> list[Path]:
        """Return the pictures that tasks name as ``contact_sheet`` in the metadata, if any."""
        names = self.metadata.get("contact_sheet", ())
        names = [names] if isinstance(names, str) else names
        paths = (self.output / name for name in names if isinstance(name, str))
        return [path for path in paths if path.is_file()]

    def _repr_html_(self) -> str:
        from ._html import result_html

        return result_html(self, _MAX_ROWS, _MAX_IMAGE_BYTES)


def problems_of(facts: Sequence[Mapping[str, Any]]) -> list[Problem]:
    """Read problems of the program's JSON."""
    return [
        Problem(
            message=problem["message"],
            location=problem.get("location", ""),
            file=problem.get("file"),
            pointer=problem.get("pointer"),
            line=problem.get("line"),
            column=problem.get("column"),
        )
        for problem in facts
    ]


def read_result(work_dir: Path, output: Path, status: Status | None) -> Result:
    """Read the result of a run that has ended from its work directory."""
    try:
        text = (work_dir / _RESULT).read_bytes()
        document: dict[str, Any] = _json.loads(text)
    except (OSError, ValueError):
        document = {}
    is_v2 = "images" in document
    return Result(
        work_dir=work_dir,
        output=output,
        metadata=document.get("metadata", {}) if not is_v2 else {},
        history=document.get("history", []) if not is_v2 else [],
        dataset=document if is_v2 else None,
        tasks=status.tasks if status else [],
        warnings=status.warnings if status else [],
    )


def read_calls(work_dir: Path, *, all_attempts: bool) -> list[dict[str, Any]]:
    """Read the calls of a run from its event log."""
    names: dict[int, str] = {}
    started: dict[tuple[Any, ...], str] = {}
    calls: dict[tuple[Any, ...], dict[str, Any]] = {}
    for event in _lines(work_dir / _EVENTS):
        kind = event.get("event")
        if kind == "task_started":
            names[event["task"]] = event["name"]
            continue
        if kind not in ("call_started", "call_finished"):
            continue
        call = (event["task"], event.get("batch", 0), event["call_index"], event["attempt"])
        if kind == "call_started":
            started[call] = event["time"]
            continue
        key = call if all_attempts else call[:3]
        # A later attempt takes the place of an earlier one, at the end.
        calls.pop(key, None)
        calls[key] = {
            "order": event["task"],
            "task": names.get(event["task"], ""),
            "component": event.get("item"),
            "call_index": event["call_index"],
            "attempt": event["attempt"],
            "outcome": event["outcome"],
            "exit_code": 0 if event["outcome"] == "succeeded" else event.get("code"),
            "message": event.get("message"),
            "started": started.get(call),
            "ended": event["time"],
            "wall_time_s": event.get("wall_time_s"),
            "peak_memory_bytes": event.get("peak_memory_bytes"),
            "stdout_bytes": event.get("stdout_bytes"),
            "stderr_bytes": event.get("stderr_bytes"),
        }
    return list(calls.values())


def _lines(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    with open(path, "rb") as file:
        for line in file:
            # Only these are wanted, and a damaged line is skipped as by the program.
            if b'"call_' not in line and b'"task_started"' not in line:
                continue
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event
