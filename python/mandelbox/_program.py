"""The program ``mandelbox`` that belongs to this package."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import sysconfig

from .errors import HostError

NAME = "mandelbox"
#: Environment variable with the path of another program, for tests of this package.
VARIABLE = "MANDELBOX"


def path() -> str:
    """Return the path of the program.

    It is looked for next to the Python interpreter, in the folder of installed scripts, and on
    ``PATH``, where its version must be that of this package.

    Raises:
        HostError: The program was not found.

    Example:
        >>> import subprocess
        >>> from mandelbox import _program
        >>> _ = subprocess.run([_program.path(), "--version"])
    """
    return os.environ.get(VARIABLE) or _installed(os.environ.get("PATH", ""))


@functools.lru_cache(maxsize=4)
def _installed(search_path: str) -> str:
    for folder in _script_folders():
        candidate = os.path.join(folder, NAME)
        if _is_program(candidate):
            return candidate
    from . import __version__

    for folder in search_path.split(os.pathsep):
        candidate = os.path.join(folder, NAME)
        if folder and _is_program(candidate) and version_of(candidate) == __version__:
            return candidate
    raise HostError(
        f"the program `{NAME}` {__version__} was not found next to {sys.executable}, in the scripts "
        f"folder or on PATH; reinstall the package with `pip install --force-reinstall {NAME}`"
    )


def _script_folders() -> list[str]:
    folders = [os.path.dirname(sys.executable)] if sys.executable else []
    user = f"{os.name}_user"
    for scheme in (None, user if user in sysconfig.get_scheme_names() else None):
        folder = sysconfig.get_path("scripts", scheme) if scheme else sysconfig.get_path("scripts")
        if folder and folder not in folders:
            folders.append(folder)
    return folders


def _is_program(candidate: str) -> bool:
    # An environment can have a script of this name in place of the program.
    if not (os.path.isfile(candidate) and os.access(candidate, os.X_OK)):
        return False
    with open(candidate, "rb") as file:
        return file.read(2) != b"#!"


def version_of(program: str) -> str | None:
    """Return the version that a program prints, or None if it is no mandelbox."""
    try:
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    words = done.stdout.split()
    return words[1] if len(words) == 2 and words[0] == NAME else None


def main() -> None:
    """Replace this process by the program, with the arguments of this process."""
    program = path()
    os.execv(program, [program, *sys.argv[1:]])
