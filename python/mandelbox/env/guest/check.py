"""Prints what a script imports and the environment lacks: ``python.wasm check.py SCRIPT``.

The answer is a JSON array with one text for each import that fails.
"""

import ast
import contextlib
import importlib
import io
import json
import os
import sys
import traceback

# The interpreter does not look for modules next to a script.
sys.path.append(os.path.dirname(__file__))
import boot


def imports(body):
    """Return the imports that run when the script starts, not those in functions."""
    found = []
    for node in body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found.append(node)
        elif isinstance(node, ast.If):
            if "TYPE_CHECKING" not in ast.unparse(node.test):
                found += imports(node.body)
            found += imports(node.orelse)
        elif isinstance(node, ast.With):
            found += imports(node.body)
        elif isinstance(node, ast.Try):
            # An import that may fail has handlers.
            found += imports([*node.orelse, *node.finalbody])
    return found


def load(node):
    """Import what one statement imports."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            importlib.import_module(alias.name)
        return
    if node.level:
        raise ImportError("a script has no parent package for a relative import")
    module = importlib.import_module(node.module)
    for alias in node.names:
        if alias.name != "*" and not hasattr(module, alias.name):
            importlib.import_module(f"{node.module}.{alias.name}")


def describe(error):
    """Return why an import failed, and where."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<", "/boot/", "/usr/local/lib"))
    ]
    place = f", imported in {frames[-1].filename} line {frames[-1].lineno}" if frames else ""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"no module `{error.name}` in the environment{place}"
    return f"{type(error).__name__}: {error}{place}"


def problems(script):
    """Return the imports of a script that fail."""
    with io.open_code(script) as file:
        tree = ast.parse(file.read(), script)
    sys.path.insert(0, os.path.dirname(script))
    texts = []
    for node in imports(tree.body):
        try:
            load(node)
        except Exception as error:
            texts.append(f"line {node.lineno}, `{ast.unparse(node)}`: {describe(error)}")
    return texts


if __name__ == "__main__":
    boot.start()
    with contextlib.redirect_stdout(sys.stderr):
        answer = problems(sys.argv[-1])
    print(json.dumps(answer))
