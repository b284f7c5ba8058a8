"""Compares all arrays and JSON files of two folders: `compare.py NATIVE SANDBOXED`.

Needs zarr 2. Prints one line with counts. Exit code 1 if anything differs or is missing.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import zarr


def files_of(folder):
    """Returns the relative paths of all files that are not chunks of arrays."""
    found = (path for path in folder.rglob("*") if path.is_file())
    # The same values can be compressed to other bytes. The names of chunks are numbers.
    others = (path for path in found if not path.name.replace(".", "").isdigit())
    return {path.relative_to(folder) for path in others}


def content(path, root):
    """Returns a JSON document without the path of the folder that it is in."""
    return json.loads(path.read_text().replace(str(root), "ROOT"))


def array_differs(one, other):
    """Returns true if two arrays differ in their type, shape or values."""
    one, other = (zarr.open(str(path), mode="r") for path in (one, other))
    if (one.dtype, one.shape, one.chunks) != (other.dtype, other.shape, other.chunks):
        return True
    one, other = one[...], other[...]
    return not np.array_equal(one, other, equal_nan=one.dtype.kind in "fc")


def main():
    native, sandboxed = map(Path, sys.argv[1:])
    names, others = files_of(native), files_of(sandboxed)
    differing = [f"only in one: {name}" for name in sorted(names ^ others)]
    n_arrays = n_documents = 0
    for name in sorted(names & others):
        one, other = native / name, sandboxed / name
        if name.name.startswith(".z"):
            n_documents += 1
            if content(one, native) != content(other, sandboxed):
                differing.append(f"JSON: {name}")
        elif one.read_bytes() != other.read_bytes():
            differing.append(f"file: {name}")
        if name.name == ".zarray":
            n_arrays += 1
            if array_differs(one.parent, other.parent):
                differing.append(f"array: {name.parent}")
    for text in differing[:20]:
        print(text, file=sys.stderr)
    print(f"{n_arrays} arrays and {n_documents} JSON files compared, {len(differing)} different")
    return 1 if differing or n_arrays == 0 else 0


if __name__ == "__main__":
    os.environ["PYTHONWARNINGS"] = "ignore"
    sys.exit(main())
