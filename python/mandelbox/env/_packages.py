"""The packages of an environment: which are needed, in which versions, and what stands in for them.

A package of the interpreter is used as it is, whatever version others require, since its compiled
code cannot be replaced. Differences are reported and recorded.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

from ._adapters import ADAPTERS, CHANGES, CONSTRAINTS
from ._errors import EnvironmentProblem
from ._interpreter import PYTHON_VERSION, Interpreter
from ._names import Requirement, SpecifierSet, default_environment, normalized, parse
from ._pip import COMPILED, PURE, Source


@dataclass
class Package:
    """A package of the environment."""

    name: str
    version: str
    wheel: Path
    sha256: str
    is_compiled: bool

    def version_fits(self, requirement: Requirement) -> bool:
        """True if the version meets a requirement."""
        return requirement.specifier.contains(self.version, prereleases=True)


@dataclass
class Resolved:
    """All that an environment consists of, besides the interpreter."""

    packages: dict[str, Package] = field(default_factory=dict)
    #: Packages whose modules are stand-ins.
    adapters: set[str] = field(default_factory=set)
    #: Modules that are changed after their import.
    changes: set[str] = field(default_factory=set)
    #: Requirements that the interpreter's own packages do not meet.
    differing: list[str] = field(default_factory=list)
    #: Packages that are required and cannot be had, with the reason.
    missing: dict[str, str] = field(default_factory=dict)


class Resolver:
    """Finds the packages that requirements need."""

    def __init__(
        self, interpreter: Interpreter, source: Source, report: Callable[[str], None]
    ) -> None:
        self._interpreter = interpreter
        self._source = source
        self._report = report
        self._specifiers: dict[str, SpecifierSet] = {}
        #: Extras of each package whose requirements were followed.
        self._extras: dict[str, set[str]] = {}
        self.found = Resolved()

    def resolve(self, requirements: Sequence[Requirement]) -> Resolved:
        """Follow requirements until nothing is missing that can be had.

        Raises:
            EnvironmentProblem: A package that was asked for cannot be had.
        """
        for requirement in requirements:
            self._narrow(requirement)
        queue = [(requirement, "the command line") for requirement in requirements]
        asked = {normalized(requirement.name) for requirement in requirements}
        while queue:
            requirement, origin = queue.pop(0)
            queue += self._follow(requirement, origin, is_asked=origin == "the command line")
        for name in asked & set(self.found.missing):
            raise EnvironmentProblem(f"{name}: {self.found.missing[name]}")
        for name, reason in sorted(self.found.missing.items()):
            self._report(f"warning: {name} is missing: {reason}")
        for text in self.found.differing:
            self._report(f"note: {text}")
        return self.found

    def _narrow(self, requirement: Requirement) -> None:
        name = normalized(requirement.name)
        known = self._specifiers.get(name)
        if known is None:
            known = SpecifierSet(CONSTRAINTS.get(name, ""))
        self._specifiers[name] = known & requirement.specifier

    def _follow(
        self, requirement: Requirement, origin: str, is_asked: bool
    ) -> list[tuple[Requirement, str]]:
        """Get the package of a requirement. Returns its own requirements."""
        name = normalized(requirement.name)
        if name in self._interpreter.packages:
            self._use_own(name, requirement, origin)
            return []
        if not is_asked:
            self._narrow(requirement)
        package = self.found.packages.get(name)
        if package is None:
            if name in self.found.missing:
                return []
            adapter = ADAPTERS.get(name)
            if adapter is not None:
                self.found.adapters.add(name)
                self._report(f"{name}: stand-ins for its compiled modules")
                if not adapter.is_unpacked:
                    return []
            package = self._fetch(name, origin)
            if package is None:
                return []
            self.found.packages[name] = package
        elif not package.version_fits(requirement):
            self.found.differing.append(
                f"{origin} requires {requirement}; version {package.version} is used"
            )
        if CHANGES.get(name) == "":
            self.found.changes.add(name)
        return self._requirements(package, requirement.extras, is_asked)

    def _use_own(self, name: str, requirement: Requirement, origin: str) -> None:
        version = self._interpreter.packages[name]
        if requirement.specifier.contains(version, prereleases=True):
            return
        text = f"{origin} requires {requirement}; the interpreter has version {version}"
        if text not in self.found.differing:
            self.found.differing.append(text)
        if name in CHANGES:
            self.found.changes.add(name)

    def _fetch(self, name: str, origin: str) -> Package | None:
        adapter = ADAPTERS.get(name)
        is_compiled = adapter is not None
        text = f"{name}{self._specifiers[name]}"
        if adapter is not None:
            text = f"{name}{self._specifiers[name] & SpecifierSet(adapter.requirement)}"
        self._report(f"fetching {text} ...")
        wheel = self._source.fetch(text, COMPILED if is_compiled else PURE, ())
        if isinstance(wheel, str):
            self.found.missing[name] = (
                f"required by {origin}, and there is no wheel without compiled code ({wheel})"
            )
            return None
        return read_package(wheel, is_compiled)

    def _requirements(
        self, package: Package, extras: set[str], is_asked: bool
    ) -> list[tuple[Requirement, str]]:
        """Return the requirements of a package that are new with these extras.

        Of a package that was asked for, optional requirements are followed if a stand-in exists for
        them: tasks are often in an extra that also needs what cannot be had.
        """
        followed = self._extras.setdefault(package.name, set())
        new = ({""} | set(extras)) - followed
        followed |= new
        found = []
        for text in _metadata(package.wheel).get_all("Requires-Dist") or []:
            requirement = parse(text, package.wheel.name)
            is_optional = is_asked and normalized(requirement.name) in ADAPTERS
            if any(_applies(requirement, extra) for extra in new) or is_optional:
                requirement.marker = None
                found.append((requirement, f"{package.name} {package.version}"))
        return found


def _applies(requirement: Requirement, extra: str) -> bool:
    """True if the marker of a requirement holds in the interpreter."""
    if requirement.marker is None:
        return extra == ""
    environment = {
        **{key: str(value) for key, value in default_environment().items()},
        "extra": extra,
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": "wasm32",
        "platform_python_implementation": "CPython",
        "platform_system": "wasi",
        "python_full_version": f"{PYTHON_VERSION}.0",
        "python_version": PYTHON_VERSION,
        "sys_platform": "wasi",
    }
    holds = requirement.marker.evaluate(environment)
    without = requirement.marker.evaluate({**environment, "extra": ""})
    return holds and (extra == "" or not without)


def _metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        name = min(names, key=len)
        return HeaderParser().parsestr(archive.read(name).decode())


def read_package(wheel: Path, is_compiled: bool) -> Package:
    """Read the name, the version and the digest of a wheel."""
    metadata = _metadata(wheel)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return Package(
        normalized(metadata["Name"]), metadata["Version"], wheel, digest, is_compiled
    )


def unpack(package: Package, site: Path) -> None:
    """Unpack the Python modules and data of a wheel, without compiled code."""
    with zipfile.ZipFile(package.wheel) as archive:
        for info in archive.infolist():
            parts = info.filename.split("/")
            if info.is_dir() or ".." in parts or parts[0] == "":
                continue
            if info.filename.endswith((".so", ".pyd", ".dylib", ".pyx", ".c", ".h")):
                continue
            if "tests" in parts[1:] and package.is_compiled:
                continue
            if parts[0].endswith(".data"):
                continue
            archive.extract(info, site)
