"""Progress of a run in a notebook: a bar of ``tqdm``, or one of HTML, which needs no package."""

from __future__ import annotations

import html
import importlib
import importlib.util
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._events import Event

#: Interval between two updates of the HTML.
_PAUSE_S = 0.1


class Bar:
    """Progress of the calls of a run, task after task."""

    def __init__(self) -> None:
        """Choose the bar.

        Raises:
            ImportError: This is no notebook, and ``tqdm`` is not installed.
        """
        is_notebook = "ipykernel" in sys.modules
        # Without ipywidgets, tqdm writes each update to stderr as another line of text.
        has_widgets = importlib.util.find_spec("ipywidgets") is not None
        use_html = is_notebook and not (has_widgets and importlib.util.find_spec("tqdm"))
        self._view: _Tqdm | _Html = _Html() if use_html else _Tqdm()
        self._n_tasks = 0

    def update(self, event: Event) -> None:
        """Show an event."""
        if event.kind in ("run_started", "run_resumed"):
            self._n_tasks = len(event.tasks or ())
        elif event.kind == "task_started":
            text = f"[{event.task + 1}/{self._n_tasks}] {event.name}"
            self._view.start(text, event.n_calls, event.n_reused or 0)
        elif event.kind == "call_finished" and event.retry_in_s is None:
            self._view.add(1)

    def close(self) -> None:
        """End the bar, which stays in the output."""
        self._view.close()


class _Tqdm:
    """A bar of tqdm."""

    def __init__(self) -> None:
        from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

        self._bar: Any = tqdm(total=0, unit="call")

    def start(self, text: str, n_calls: int, n_done: int) -> None:
        self._bar.total = (self._bar.total or 0) + n_calls
        self._bar.set_description(text)
        self._bar.update(n_done)

    def add(self, n_calls: int) -> None:
        self._bar.update(n_calls)

    def close(self) -> None:
        self._bar.close()


class _Html:
    """A bar of HTML, which is replaced in the output."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._next = 0.0
        self._text = ""
        self._n_calls = 0
        self._n_done = 0
        self._display: Any = None

    def start(self, text: str, n_calls: int, n_done: int) -> None:
        self._text = text
        self._n_calls += n_calls
        self._n_done += n_done
        self._show()

    def add(self, n_calls: int) -> None:
        self._n_done += n_calls
        self._show()

    def close(self) -> None:
        self._text = ""
        self._next = 0.0
        if self._display is not None:
            self._show()

    def _show(self) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _PAUSE_S
            if self._display is None:
                display = importlib.import_module("IPython.display").display
                self._display = display(self._shown(), raw=True, display_id=True)
            else:
                self._display.update(self._shown(), raw=True)

    def _shown(self) -> dict[str, str]:
        time_s = time.monotonic() - self._started
        facts = [self._text, f"{self._n_done} of {self._n_calls} calls, {time_s:.1f} s"]
        text = " \N{MIDDLE DOT} ".join(fact for fact in facts if fact)
        size = f'value="{self._n_done}" max="{max(1, self._n_calls)}"'
        style = "vertical-align: middle; margin-right: 0.6em"
        bar = f'<progress {size} style="{style}"></progress>{html.escape(text)}'
        return {"text/plain": text, "text/html": bar}
