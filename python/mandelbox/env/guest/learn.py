"""Prints the modules that scripts import: ``python.wasm learn.py SCRIPT...``.

The answer is a JSON array with the names of the modules, in the order of the imports. Modules that
only the scripts of one package find are left out, and so are imports that fail.
"""

import ast
import contextlib
import importlib
import io
import json
import os
import sys

sys.path.append(os.path.dirname(__file__))
import boot
import check


def modules(node):
    """Import what one statement imports, and return the names of the modules."""
    if isinstance(node, ast.Import):
        check.load(node)
        return [alias.name for alias in node.names]
    if node.module:
        importlib.import_module(node.module)
    # Some packages import a module when a name of it is first used.
    before = set(sys.modules)
    check.load(node)
    inner = [f"{node.module}.{alias.name}" for alias in node.names]
    known = [name for name in inner if name in before]
    return [node.module, *known, *(name for name in sys.modules if name not in before)]


def learn(scripts):
    """Return the names of the modules that scripts import."""
    names = {}
    for script in scripts:
        with io.open_code(script) as file:
            tree = ast.parse(file.read(), script)
        for node in check.imports(tree.body):
            try:
                names.update(dict.fromkeys(modules(node)))
            except Exception:
                # `check` reports it.
                continue
    return list(names)


if __name__ == "__main__":
    boot.start()
    with contextlib.redirect_stdout(sys.stderr):
        answer = learn(sys.argv[1:])
    print(json.dumps(answer))
