"""Starts the interpreter for a snapshot: each call begins with what is imported here.

The interpreter runs this file instead of its own initialization. Calls that start plainly do not
run it. `preload.json` has the names of the modules.
"""

import atexit
import encodings.utf_8  # noqa: F401
import gc
import importlib
import io
import json
import linecache  # noqa: F401
import os
import pkgutil  # noqa: F401
import re  # noqa: F401
import runpy  # noqa: F401
import sys
import traceback  # noqa: F401

import _colorize  # noqa: F401
import _reactor


#: Programs of the environment, one of which each call runs first.
PROGRAMS = ("/boot/boot.py", "/boot/call.py")
#: Memory that a call can use without growing it. Pages that it does not touch cost nothing.
SPARE_BYTES = 32 << 20


def import_modules():
    """Imports the modules of the environment. A call imports those that fail here, and fails."""
    sys.path.append("/boot")
    import boot

    boot.prepare_imports()
    with open("/boot/preload.json") as file:
        names = json.load(file)
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            print(f"{name}: not in the snapshot: {type(error).__name__}: {error}", file=sys.stderr)
    # The package of a script can have a module of this name.
    del sys.modules["boot"]


def ending_quickly(run):
    """Returns a function that ends the process after a script.

    It does what Python does at its end, except for the destruction of what all calls share: that
    would change most pages of the memory.
    """

    def run_and_exit(argv, environ):
        code = run(argv, environ)
        try:
            atexit._run_exitfuncs()
            main = sys.modules.get("__main__")
            if main is not None:
                main.__dict__.clear()
            gc.collect()
            flush_files()
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:
            code = code or 120
        os._exit(code)

    return run_and_exit


def flush_files():
    """Flushes open files that modules hold."""
    for thing in gc.get_objects():
        if isinstance(thing, io.IOBase) and not thing.closed:
            try:
                thing.flush()
            except (OSError, ValueError):
                pass


def remember_programs():
    """Keeps the code of the programs, which calls otherwise compile."""
    codes = {}
    for path in PROGRAMS:
        with open(path, "rb") as file:
            codes[path] = compile(file.read(), path, "exec")
    get_code = runpy._get_code_from_file
    runpy._get_code_from_file = lambda path, *more: codes.get(path) or get_code(path, *more)
    # They are files, not folders or archives with a program.
    sys.path_importer_cache.update(dict.fromkeys(PROGRAMS))


def add_spare_memory():
    """Leaves free memory for calls: an instance whose memory has grown serves no further call."""
    del bytearray(SPARE_BYTES)[:]


import_modules()
remember_programs()
add_spare_memory()
_reactor.run = ending_quickly(_reactor.run)
