"""mandelbox as the local backend of fractal-server.

Serve ``mandelbox.fractal.app:app`` in place of ``fractal_server.main:app``; nothing else changes:

    uvicorn mandelbox.fractal.app:app

Settings come from ``MANDELBOX_*`` variables: ``MANDELBOX_POLICY``, ``MANDELBOX_JOBS``,
``MANDELBOX_MEMORY``, ``MANDELBOX_TIMEOUT``, ``MANDELBOX_ISOLATION``, ``MANDELBOX_SHARE``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..errors import MandelboxError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["install", "options", "uninstall"]

#: Versions of fractal-server that were tested, up to and without the second one.
_V1 = ((2, 9, 2), (2, 9, 3))
_V2 = ((2, 24), (2, 27))
_SETTINGS = ("policy", "jobs", "memory", "timeout", "isolation")


def install() -> None:
    """Make mandelbox the local backend of the fractal-server of this process.

    A second call changes nothing. Call this before ``fractal_server.main`` is imported.

    Raises:
        MandelboxError: fractal-server is not installed, or its version is not known.
    """
    _module().install()


def uninstall() -> None:
    """Restore the local backend of fractal-server."""
    _module().uninstall()


def options() -> dict[str, Any]:
    """Return the options of runs and batches that the variables ``MANDELBOX_*`` set.

    Raises:
        MandelboxError: A variable has an invalid value.
    """
    found: dict[str, Any] = {}
    for name in _SETTINGS:
        value = os.environ.get(f"MANDELBOX_{name.upper()}")
        if value:
            found[name] = value
    if "jobs" in found:
        try:
            found["jobs"] = int(found["jobs"])
        except ValueError:
            raise MandelboxError(
                f"MANDELBOX_JOBS: must be a number of calls, not {found['jobs']!r}"
            ) from None
    return found


def _module() -> ModuleType:
    try:
        from fractal_server import __VERSION__ as version
    except ImportError as error:
        raise MandelboxError(
            "fractal-server is not installed here; install it in the environment of this package"
        ) from error
    number = _number(version)
    if _V1[0] <= number < _V1[1]:
        from . import v1

        return v1
    if _V2[0] <= number < _V2[1]:
        from . import v2

        return v2
    raise MandelboxError(
        f"fractal-server {version} is not known to this version of mandelbox, which works with 2.9.2 "
        "and with 2.24 to 2.26; install one of these, or a newer mandelbox"
    )


def _number(version: str) -> tuple[int, ...]:
    parts: list[int] = []
    for part in version.split(".")[:3]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        parts.append(int(digits))
    return tuple(parts)


def expect_parameters(function: Any, names: set[str], what: str) -> None:
    """Check that a function of fractal-server has the expected parameters.

    Raises:
        MandelboxError: It has others.
    """
    import inspect

    found = set(inspect.signature(function).parameters)
    if found != names:
        differing = ", ".join(sorted(found ^ names))
        raise MandelboxError(
            f"fractal-server's {what} is not as expected (parameters that differ: {differing}); "
            "install fractal-server 2.9.2 or 2.24 to 2.26, or a newer mandelbox"
        )
