"""The example notebook is executed, and its outputs are looked at."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import EXAMPLES, ROOT

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("pandas")


def outputs_of(cell: Any) -> str:
    """Return all text and HTML that a cell has shown."""
    shown = []
    for output in cell.outputs:
        data = output.get("data", {})
        shown += [output.get("text", ""), data.get("text/html", ""), data.get("text/plain", "")]
    return "\n".join(shown)


def test_the_notebook_shows_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "task-examples").symlink_to(EXAMPLES)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    notebook = nbformat.read(ROOT / "python" / "examples" / "mandelbox.ipynb", as_version=4)
    kernel = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=kernel).execute()
    shown = {cell.source: outputs_of(cell) for cell in notebook.cells if cell.cell_type == "code"}

    def of(text: str) -> str:
        return next(output for source, output in shown.items() if text in source)

    assert "nothing was run" in of("mandelbox.plan") and "Segment nuclei" in of("mandelbox.plan")
    run = of("result = mandelbox.run(")
    assert "Contact sheet" in run and "data:image/png;base64," in run and "report.html" in run
    # The bar is one output that was updated, at its end.
    assert run.count("<progress") == 1 and "41 of 41 calls" in run
    assert "B03" in of("read_csv")
    assert "Segment nuclei" in of("groupby(\"task\")")
    assert "Segment nuclei [(" in of("except mandelbox.TaskExecutionError")
    assert "('Convert images', 8)" in of("except mandelbox.TaskExecutionError")
    assert "9 Contact sheet 1" in of("mandelbox.start(")
    assert "{'cells.pgm': 96}" in of("mandelbox.Task(")
    assert "[8, 8]" in of("asyncio.gather")
    kept = os.environ.get("MANDELBOX_KEEP_NOTEBOOK")
    if kept:
        nbformat.write(notebook, kept)
        shutil.copytree(tmp_path / "results", Path(kept).parent / "results", dirs_exist_ok=True)
