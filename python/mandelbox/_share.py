"""Folder through which all runs of this process share CPUs and memory."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading

#: Environment variable with a folder that several processes share.
VARIABLE = "MANDELBOX_SHARE"

_lock = threading.Lock()
_folder: str | None = None
_owner = 0


def folder() -> str:
    """Return the folder: that of the variable ``MANDELBOX_SHARE``, or one of this process.

    Processes that were forked from this one afterwards have the same folder.
    """
    global _folder, _owner
    given = os.environ.get(VARIABLE)
    if given:
        return given
    with _lock:
        if _folder is None or not os.path.isdir(_folder):
            _folder = tempfile.mkdtemp(prefix="mandelbox-share-")
            _owner = os.getpid()
            atexit.register(_remove, _folder, _owner)
        return _folder


def _remove(path: str, owner: int) -> None:
    # Processes that were forked from the owner do not remove it.
    if os.getpid() == owner:
        shutil.rmtree(path, ignore_errors=True)


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
