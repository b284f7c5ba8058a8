"""Compiles all modules in place: ``python.wasm compile_site.py FOLDER...``.

The files are valid whatever the time of the sources, so that they are the same each time.
"""

import compileall
import py_compile
import sys

if __name__ == "__main__":
    for folder in sys.argv[1:]:
        compileall.compile_dir(
            folder,
            quiet=2,
            maxlevels=50,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
