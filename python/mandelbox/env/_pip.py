"""Wheels, fetched by pip."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ._errors import EnvironmentProblem
from ._interpreter import PYTHON_VERSION

#: Wheels without compiled code.
PURE = (
    "--platform=any",
    "--implementation=py",
    "--abi=none",
    f"--python-version={PYTHON_VERSION}",
    # Bounds of versions that are not known to fail.
    "--ignore-requires-python",
)
#: Wheels with compiled code, whose Python modules are used. One platform, wherever this runs.
COMPILED = (
    "--platform=manylinux2014_x86_64",
    "--platform=manylinux_2_17_x86_64",
    "--implementation=cp",
    "--python-version=3.12",
)


@dataclass
class Source:
    """Where pip looks for wheels.

    Attributes:
        find_links: Folders with wheels.
        index: False to use only these folders.
    """

    find_links: Sequence[str] = ()
    index: bool = True
    #: Folder of the downloads, which goes away with this object.
    _scratch: tempfile.TemporaryDirectory[str] = field(
        default_factory=lambda: tempfile.TemporaryDirectory(prefix="mandelbox-env-"),
        init=False,
        repr=False,
    )

    def fetch(self, requirement: str, kind: Sequence[str], constraints: Sequence[str]) -> Path | str:
        """Download the best wheel. Returns its path, or why there is none."""
        folder = Path(tempfile.mkdtemp(dir=self._scratch.name))
        words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        words += ["--disable-pip-version-check", "--only-binary=:all:", f"--dest={folder}", *kind]
        words += [f"--find-links={path}" for path in self.find_links]
        words += [] if self.index else ["--no-index"]
        if constraints:
            file = folder.with_suffix(".txt")
            file.write_text("\n".join(constraints) + "\n")
            words.append(f"--constraint={file}")
        done = subprocess.run([*words, requirement], capture_output=True, text=True, check=False)
        wheels = list(folder.glob("*.whl"))
        if done.returncode == 0 and len(wheels) == 1:
            return wheels[0]
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        if not lines and "No module named pip" in done.stderr:
            raise EnvironmentProblem(f"{sys.executable} has no pip; install it")
        return lines[-1].removeprefix("ERROR: ") if lines else done.stderr.strip()[-300:]
