"""Projects for tests, and the program that they run.

The variable ``MANDELBOX`` names the program; without it, the installed one is used.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "task-examples"
MODULES = EXAMPLES / "modules"


def module(name: str) -> str:
    """Return the path of a built module."""
    path = MODULES / f"{name}.wasm"
    assert path.is_file(), path
    return str(path)


def task(order: int, name: str, args: dict[str, Any], level: str | None = None) -> dict[str, Any]:
    """Return a workflow task of the module `swiss`, which does what its arguments say."""
    meta = {} if level is None else {"parallelization_level": level}
    command = shlex.quote(module("swiss"))
    return {
        "id": 10 + order,
        "order": order,
        "args": args,
        "meta": {},
        "task": {"name": name, "command": command, "meta": meta},
    }


def workflow(second: dict[str, Any], n: int = 3) -> dict[str, Any]:
    """Return a workflow: a list of components, and a task that gets `second` for each of them."""
    components = [f"c{index}" for index in range(n)]
    first = task(0, "list", {"metadiff": {"well": components}})
    return {"name": "test", "task_list": [first, task(1, "second", second, "well")]}


class Project:
    """A folder with an input and an output, in which a test runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("in", "out"):
            (folder / name).mkdir()
        self.options: dict[str, Any] = {
            "input": folder / "in",
            "output": folder / "out",
            "work_dir": folder / "work",
            "isolation": "thread",
        }

    def events(self) -> list[dict[str, Any]]:
        """Return the events of the run so far."""
        path = self.folder / "work" / "events.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def n_events(self, kind: str) -> int:
        """Return the number of events of a kind so far."""
        return sum(event["event"] == kind for event in self.events())


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project, as the current folder."""
    monkeypatch.chdir(tmp_path)
    yield Project(tmp_path)
