"""Runs a script as ``python SCRIPT ARG...`` does: ``python.wasm boot.py SCRIPT ARG...``."""

import importlib.util
import os
import runpy
import sys
import types
from importlib.machinery import SourcelessFileLoader

_SITE = "/site"
#: Files whose frames are above those of a script: this one, and those that return its code.
_OWN_FILES = (__file__, "<frozen runpy>", "<string>")


def start() -> None:
    """Prepare imports and streams."""
    prepare_imports()
    # Standard output goes to a file, and its lines keep their order among those of standard error.
    sys.stdout.reconfigure(line_buffering=True)


def prepare_imports() -> None:
    """Let the packages and stand-ins be found. A snapshot contains this, and calls repeat it."""
    folder = os.path.dirname(__file__)
    if _SITE not in sys.path:
        sys.path.insert(0, _SITE)
    if folder not in sys.path:
        sys.path.append(folder)
    import _shims

    _shims.install()


def code_of(script: str) -> types.CodeType:
    """Return the code of a script: the one that was compiled with the environment, if it has one.

    In a snapshot, ``runpy`` has the code of the environment's own programs.
    """
    if script.startswith(f"{_SITE}/"):
        cached = importlib.util.cache_from_source(script)
        if os.path.isfile(cached):
            return SourcelessFileLoader("__main__", cached).get_code("__main__")
    return runpy._get_code_from_file(script, "__main__")


def run(script: str) -> None:
    """Run a script as ``__main__``, and end with its exit code."""
    sys.path.insert(0, os.path.dirname(script))
    main = types.ModuleType("__main__")
    main.__file__ = script
    main.__builtins__ = __builtins__
    sys.modules["__main__"] = main
    try:
        exec(code_of(script), main.__dict__)
    except SystemExit:
        raise
    except BaseException as error:
        # Only the frames of the script, as natively.
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename in _OWN_FILES:
            trace = trace.tb_next
        error.__traceback__ = trace
        sys.excepthook(type(error), error, error.__traceback__)
        sys.exit(1)


if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    start()
    run(sys.argv[0])
