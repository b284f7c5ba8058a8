"""JSON documents whose numbers keep their digits, and errors that name the location of a bad value."""

from __future__ import annotations

import enum
import json
import math
import os
from collections.abc import Mapping
from typing import Any

from .errors import DocumentsError, Problem

__all__ = ["Float", "dumps", "loads"]

_string = json.encoder.encode_basestring
#: Nesting that documents may have; the program allows as much.
_MAX_DEPTH = 256


class Float(float):
    """A number that keeps the text that it was read from, such as ``0.30000000000000000001``."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> Float:
        """Read the number."""
        value = super().__new__(cls, text)
        value.text = text
        return value

    def __getnewargs__(self) -> tuple[str]:  # type: ignore[override]
        return (self.text,)

    def __reduce__(self) -> tuple[type[Float], tuple[str]]:
        return type(self), (self.text,)


def _parse_float(text: str) -> float:
    value = float(text)
    return value if repr(value) == text else Float(text)


def loads(text: str | bytes) -> Any:
    """Parse JSON. Numbers that Python would round are :class:`Float`."""
    return json.loads(text, parse_float=_parse_float)


def dumps(value: Any, name: str) -> str:
    """Return a value as JSON.

    Tuples, paths, enumerations of strings and scalars of numpy are accepted as well.

    Args:
        value: The value.
        name: Name of the value for errors, such as ``metadata``.

    Raises:
        DocumentsError: A value that JSON does not have, with its location.
    """
    parts: list[str] = []
    problems: list[Problem] = []
    _write(value, parts, [], name, problems)
    if problems:
        raise DocumentsError(problems)
    return "".join(parts)


def _write(
    value: Any, parts: list[str], at: list[Any], name: str, problems: list[Problem]
) -> None:
    kind = type(value)
    if kind is str:
        parts.append(_string(value))
    elif value is None:
        parts.append("null")
    elif value is True:
        parts.append("true")
    elif value is False:
        parts.append("false")
    elif kind is int:
        parts.append(int.__repr__(value))
    elif kind is dict or isinstance(value, Mapping):
        _write_object(value, parts, at, name, problems)
    elif kind is list or kind is tuple or isinstance(value, (list, tuple)):
        _write_array(value, parts, at, name, problems)
    elif isinstance(value, Float):
        parts.append(value.text)
    elif isinstance(value, float):
        if math.isfinite(value):
            parts.append(float.__repr__(value))
        else:
            _refuse(at, name, problems, f"JSON has no {value!r}; use None or a finite number")
    elif isinstance(value, enum.Enum):
        _write(value.value, parts, at, name, problems)
    elif isinstance(value, str):
        parts.append(_string(str.__str__(value)))
    elif isinstance(value, int):
        parts.append(int.__repr__(value))
    elif isinstance(value, os.PathLike):
        path = os.fspath(value)
        parts.append(_string(os.fsdecode(path)))
    elif _is_numpy_scalar(value):
        _write(value.item(), parts, at, name, problems)
    else:
        text = f"JSON has no {kind.__module__}.{kind.__qualname__}; convert it"
        _refuse(at, name, problems, text)


def _write_object(
    value: Mapping[Any, Any], parts: list[str], at: list[Any], name: str, problems: list[Problem]
) -> None:
    if _is_too_deep(at, name, problems):
        return
    parts.append("{")
    separator = ""
    for key, item in value.items():
        if isinstance(key, enum.Enum):
            key = key.value
        if not isinstance(key, str):
            _refuse(at, name, problems, f"the key {key!r} is no string; convert it")
            continue
        parts.append(separator + _string(str.__str__(key)) + ":")
        separator = ","
        at.append(key)
        _write(item, parts, at, name, problems)
        at.pop()
    parts.append("}")


def _write_array(
    value: list[Any] | tuple[Any, ...],
    parts: list[str],
    at: list[Any],
    name: str,
    problems: list[Problem],
) -> None:
    if _is_too_deep(at, name, problems):
        return
    parts.append("[")
    for index, item in enumerate(value):
        if index:
            parts.append(",")
        at.append(index)
        _write(item, parts, at, name, problems)
        at.pop()
    parts.append("]")


def _is_too_deep(at: list[Any], name: str, problems: list[Problem]) -> bool:
    if len(at) < _MAX_DEPTH:
        return False
    _refuse(at[:8], name, problems, f"is nested deeper than {_MAX_DEPTH} levels")
    return True


def _is_numpy_scalar(value: Any) -> bool:
    # Without an import of numpy: its scalars have a shape of no dimension.
    return (
        type(value).__module__.partition(".")[0] == "numpy"
        and getattr(value, "shape", None) == ()
        and hasattr(value, "item")
    )


def _refuse(at: list[Any], name: str, problems: list[Problem], message: str) -> None:
    keys = (str(key).replace("~", "~0").replace("/", "~1") for key in at)
    pointer = "".join("/" + key for key in keys)
    location = f"{name}: {pointer}" if pointer else name
    problems.append(Problem(message, location=location, file=name, pointer=pointer))
