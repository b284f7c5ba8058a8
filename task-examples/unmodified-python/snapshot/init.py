"""Runs when the interpreter starts for a snapshot; each call begins with what is imported here.

Import what tasks have in `sys.modules` at their end, as what a library imports at its first use would be
imported in each call.
"""

import argparse, atexit, csv, encodings, gc, io, json, os, pathlib, re, runpy, sys, traceback  # noqa: E401

import _colorize
import _reactor
import numpy
import numpy.random


def ending_quickly(run):
    """Ends the process after the script as Python does, but without tearing down what all calls share."""

    def run_and_exit(argv, environ):
        code = run(argv, environ)
        try:
            atexit._run_exitfuncs()
            main = sys.modules.get("__main__")
            if main is not None:
                main.__dict__.clear()
            gc.collect()
            for thing in gc.get_objects():
                if isinstance(thing, io.IOBase) and not thing.closed:
                    try:
                        thing.flush()
                    except (OSError, ValueError):
                        pass
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:
            code = code or 120
        os._exit(code)

    return run_and_exit


_reactor.run = ending_quickly(_reactor.run)
