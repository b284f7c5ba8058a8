"""What results, plans and states show in a notebook."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from ._result import Plan, Result, Status, TaskSummary

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def result_html(result: Result, max_rows: int, max_image_bytes: int) -> str:
    """Return the tasks of a result as a table, a link to its report, and its contact sheets."""
    parts = [_tasks(result.tasks, max_rows), _warnings(result.warnings)]
    links = []
    try:
        links.append(_link(result.report(), "report"))
    except OSError:
        pass
    links += [_link(result.output, "output"), _link(result.work_dir, "records")]
    parts.append(f"<p>{' · '.join(links)}</p>")
    parts += [_image(path) for path in _small(result.contact_sheets(), max_image_bytes)]
    return "\n".join(part for part in parts if part)


def status_html(status: Status, max_rows: int) -> str:
    """Return the tasks of a run as a table, under its state."""
    error = f" ({escape(status.error)})" if status.error else ""
    title = f"<p><b>{escape(status.workflow or '')}</b>: {escape(status.state)}{error}</p>"
    return "\n".join((title, _tasks(status.tasks, max_rows), _warnings(status.warnings)))


def plan_html(plan: Plan, max_rows: int) -> str:
    """Return the tasks of a plan as a table, with its folders and warnings."""
    rows = [
        (
            str(task.order),
            task.name,
            task.calls,
            size(task.memory_bytes),
            seconds(task.wall_time_s) or "none",
            os.path.basename(task.module),
        )
        for task in plan.tasks
    ]
    head = ("", "task", "calls", "memory", "time limit", "module")
    folders = "".join(
        f"<li>{'read-write' if writable else 'read-only'}: <code>{escape(path)}</code></li>"
        for path, writable in plan.folders.items()
    )
    warnings = [str(warning) for warning in plan.warnings]
    title = f"<p><b>{escape(plan.workflow)}</b>: nothing was run</p>"
    parts = (title, _table(head, rows, max_rows), f"<ul>{folders}</ul>", _warnings(warnings))
    return "\n".join(part for part in parts if part)


def _tasks(tasks: Sequence[TaskSummary], max_rows: int) -> str:
    rows = [
        (
            str(task.order),
            task.name,
            task.state,
            _calls(task),
            seconds(task.longest_call_s),
            size(task.peak_memory_bytes),
        )
        for task in tasks
    ]
    head = ("", "task", "state", "calls", "longest call", "peak memory")
    return _table(head, rows, max_rows)


def _calls(task: TaskSummary) -> str:
    if task.n_calls is None:
        return ""
    failed = f", {task.n_failed} failed" if task.n_failed else ""
    reused = f", {task.n_reused} reused" if task.n_reused else ""
    return f"{task.n_done} of {task.n_calls}{failed}{reused}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], max_rows: int) -> str:
    def cells(tag: str, texts: Iterable[str]) -> str:
        style = ' style="text-align:left"'
        return "".join(f"<{tag}{style}>{escape(text)}</{tag}>" for text in texts)

    lines = ["<table>", f"<thead><tr>{cells('th', head)}</tr></thead>", "<tbody>"]
    lines += [f"<tr>{cells('td', row)}</tr>" for row in rows[:max_rows]]
    if len(rows) > max_rows:
        more = f"and {len(rows) - max_rows} more"
        lines.append(f'<tr><td></td><td colspan="{len(head) - 1}">{more}</td></tr>')
    return "\n".join([*lines, "</tbody>", "</table>"])


def _warnings(warnings: Sequence[str]) -> str:
    shown = "".join(f"<li>{escape(warning)}</li>" for warning in warnings[:10])
    more = f"<li>and {len(warnings) - 10} more</li>" if len(warnings) > 10 else ""
    return f"<p>warnings:</p><ul>{shown}{more}</ul>" if warnings else ""


def _link(path: Path, text: str) -> str:
    # Jupyter serves files below the folder of the notebook, by their relative paths.
    relative = os.path.relpath(path)
    target = Path(path).absolute().as_uri() if relative.startswith("..") else quote(relative)
    return f'<a href="{escape(target)}" target="_blank">{escape(text)}</a>'


def _small(paths: Sequence[Path], max_bytes: int) -> list[Path]:
    is_shown = (path.suffix.lower() == ".png" and path.stat().st_size <= max_bytes for path in paths)
    return [path for path, shown in zip(paths, is_shown) if shown][:4]


def _image(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    name = escape(path.name)
    return f'<img alt="{name}" title="{name}" src="data:image/png;base64,{data}">'


def size(n_bytes: int | None) -> str:
    """Return a size with a unit, such as ``12.3 MiB``."""
    if n_bytes is None:
        return ""
    value = float(n_bytes)
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{value:.0f} {unit}" if value == int(value) else f"{value:.1f} {unit}"


def seconds(value: float | None) -> str:
    """Return a duration with a unit, such as ``1.2 s``."""
    if value is None:
        return ""
    if value < 0.1:
        return f"{value * 1000:.1f} ms"
    return f"{value:.2f} s" if value < 60 else f"{value / 60:.1f} min"
