"""A bar of ``tqdm`` for notebooks. This module can be imported only if ``tqdm`` is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

if TYPE_CHECKING:
    from ._events import Event


class Bar:
    """Progress of the calls of a run, task after task."""

    def __init__(self) -> None:
        self._bar: Any = tqdm(total=0, unit="call")
        self._n_tasks = 0

    def update(self, event: Event) -> None:
        """Show an event."""
        if event.kind in ("run_started", "run_resumed"):
            self._n_tasks = len(event.tasks or ())
        elif event.kind == "task_started":
            self._bar.total = (self._bar.total or 0) + event.n_calls
            self._bar.set_description(f"[{event.task + 1}/{self._n_tasks}] {event.name}")
            self._bar.update(event.n_reused or 0)
        elif event.kind == "call_finished" and event.retry_in_s is None:
            self._bar.update(1)

    def close(self) -> None:
        """End the bar, which stays in the output."""
        self._bar.close()
