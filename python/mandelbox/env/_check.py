"""Check of the tasks of a package in an environment."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from .. import _program
from ._create import DESCRIPTION_FILE
from ._errors import EnvironmentProblem

_MANIFEST = "__FRACTAL_MANIFEST__.json"


def check(
    environment: str | os.PathLike[str], package: str | os.PathLike[str]
) -> list[dict[str, Any]]:
    """Import what each task of a package imports, in the sandbox.

    Args:
        environment: Folder of the environment.
        package: Folder of the task package, or the name of a package in the environment.

    Returns:
        For each script, in the order of the manifest: ``script`` and ``missing``, a list of texts
        that is empty if the script finds all that it imports.

    Raises:
        EnvironmentProblem: The folders are not an environment and a package.
    """
    folder = Path(environment).absolute()
    if not (folder / DESCRIPTION_FILE).is_file():
        raise EnvironmentProblem(f"{folder}: is not an environment; create it first")
    path = Path(package)
    if not path.is_dir():
        path = folder / "site" / str(package).replace("-", "_")
    if not (path / _MANIFEST).is_file():
        raise EnvironmentProblem(
            f"{package}: is neither a folder with a {_MANIFEST} nor a task package of {folder}"
        )
    words = [_program.path(), "check", str(path), f"--python={folder}", "--format=json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    try:
        answer = json.loads(done.stdout)
        modules = answer["package"]["modules"]
    except (ValueError, KeyError, TypeError) as error:
        raise EnvironmentProblem(f"{package}: {done.stderr.strip() or done.stdout}") from error
    return [
        {"script": module["path"], "missing": module.get("missing", [])}
        for module in modules
        if module.get("kind") == "script"
    ]
