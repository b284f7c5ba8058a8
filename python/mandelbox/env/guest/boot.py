"""Runs a script as ``python SCRIPT ARG...`` does: ``python.wasm boot.py SCRIPT ARG...``."""

import io
import os
import sys
import types

_SITE = "/site"


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


def run(script: str) -> None:
    """Run a script as ``__main__``, and end with its exit code."""
    sys.path.insert(0, os.path.dirname(script))
    main = types.ModuleType("__main__")
    main.__file__ = script
    main.__builtins__ = __builtins__
    sys.modules["__main__"] = main
    try:
        with io.open_code(script) as file:
            code = compile(file.read(), script, "exec")
        exec(code, main.__dict__)
    except SystemExit:
        raise
    except BaseException as error:
        # Without the frame of this function, as natively.
        trace = error.__traceback__
        error.__traceback__ = trace and trace.tb_next
        sys.excepthook(type(error), error, error.__traceback__)
        sys.exit(1)


if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    start()
    run(sys.argv[0])
