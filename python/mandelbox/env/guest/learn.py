"""Prints the modules that scripts import: ``python.wasm learn.py SCRIPT...``.

The answer is a JSON array with the names of the modules, in the order of the imports. Modules that
only the scripts of one package find are left out, and so are imports that fail.
"""

import ast
import contextlib
import io
import json
import os
import sys

sys.path.append(os.path.dirname(__file__))
import boot
import check


def modules(node):
    """Import what one statement imports, and return the names of the modules."""
    check.load(node)
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    inner = [f"{node.module}.{alias.name}" for alias in node.names]
    return [node.module, *(name for name in inner if name in sys.modules)]


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
