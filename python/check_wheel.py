"""Checks a wheel: its files, its version, and that it needs no newer glibc than its name says."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile

#: glibc versions of tags that have names of their own.
NAMED = {"manylinux2014": (2, 17), "manylinux2010": (2, 12), "manylinux1": (2, 5)}


def glibc_of(tag: str) -> tuple[int, int] | None:
    """Return the glibc version of a platform tag, or None for a plain `linux` tag."""
    found = re.search(r"manylinux_(\d+)_(\d+)", tag)
    if found:
        return int(found[1]), int(found[2])
    return next((version for name, version in NAMED.items() if name in tag), None)


def main(wheel: str) -> None:
    """Print what is wrong and exit with 1, or print the tags."""
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        r"mandelbox/__init__\.py",
        r"mandelbox/py\.typed",
        r"mandelbox/fractal/app\.py",
        r".*\.data/scripts/mandelbox",
        r".*\.dist-info/.*LICENSE-MIT",
        r".*\.dist-info/.*LICENSE-APACHE",
    ):
        if not any(re.fullmatch(wanted, name) for name in names):
            sys.exit(f"{wheel}: contains no file {wanted}")
    shown = subprocess.run(["auditwheel", "show", wheel], capture_output=True, text=True)
    text = " ".join(shown.stdout.split())
    needed = [glibc_of(tag) for tag in re.findall(r'tag: "([^"]+)"', text)]
    needed = [version for version in needed if version is not None]
    claimed = glibc_of(wheel)
    print(f"the name claims glibc {claimed}; auditwheel finds that it needs {max(needed, default=None)}")
    if shown.returncode != 0 or (claimed is not None and (not needed or max(needed) > claimed)):
        sys.exit(f"{wheel}: needs a newer glibc than its name says\n{shown.stdout}{shown.stderr}")


if __name__ == "__main__":
    main(sys.argv[1])
