"""Names and requirements of packages."""

from __future__ import annotations

import re

from ._errors import EnvironmentProblem

try:
    from packaging import markers, requirements, specifiers, version
except ImportError:
    try:
        # pip brings its own copy.
        from pip._vendor.packaging import (  # type: ignore[no-redef]
            markers,
            requirements,
            specifiers,
            version,
        )
    except ImportError as error:
        raise EnvironmentProblem(
            "environments need the package `pip` (or `packaging`); install it"
        ) from error

InvalidRequirement = requirements.InvalidRequirement
Requirement = requirements.Requirement
SpecifierSet = specifiers.SpecifierSet
Version = version.Version
default_environment = markers.default_environment


def normalized(name: str) -> str:
    """Return a name as package registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse(text: str, location: str) -> Requirement:
    """Parse a requirement."""
    try:
        return Requirement(text)
    except InvalidRequirement as error:
        raise EnvironmentProblem(f"{location}: not a requirement: {error}") from error
