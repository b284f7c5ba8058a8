"""Conversion of an interpreter that is built as a library to a command.

The library exports ``run``, which returns the exit code, and perhaps ``_initialize``. The command
exports ``_start`` in addition, which calls both and passes the code to ``proc_exit``.

If the library exports ``wizer.initialize``, calls can start from a snapshot of the command: it exports
``wizer.resume``, which is ``_start`` without ``_initialize``, and the initialization runs a file of
the environment.
"""

from __future__ import annotations

_WASI = "wasi_snapshot_preview1"
_TYPE, _IMPORT, _FUNCTION, _EXPORT, _CODE, _DATA = 1, 2, 3, 7, 10, 11
_FUNCTION_KIND = 0
_CALL, _END = 0x10, 0x0B
_INITIALIZE, _WIZER_INITIALIZE = "_initialize", "wizer.initialize"
#: Code that the interpreter runs in its initialization, and the code in place of it.
_INIT_TEXT = b"import encodings, io, os, sys, json, csv, re, _colorize\0"
_NEW_INIT_TEXT = b"exec(open('/boot/init.py').read())".ljust(len(_INIT_TEXT), b"\0")


class _Reader:
    """Numbers, names and limits from the bytes of a section."""

    def __init__(self, data: bytes, position: int = 0) -> None:
        self.data = data
        self.position = position

    def byte(self) -> int:
        self.position += 1
        return self.data[self.position - 1]

    def number(self) -> int:
        """Read an unsigned LEB128 number."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def name(self) -> str:
        length = self.number()
        self.position += length
        return self.data[self.position - length : self.position].decode()

    def limits(self) -> None:
        flags = self.number()
        self.number()
        if flags & 1:
            self.number()

    def skip_descriptor(self) -> int:
        """Skip the descriptor of an import and return its kind."""
        kind = self.byte()
        if kind == _FUNCTION_KIND:
            self.number()
        elif kind == 1:  # table
            self.byte()
            self.limits()
        elif kind == 2:  # memory
            self.limits()
        elif kind == 3:  # global
            self.position += 2
        elif kind == 4:  # tag
            self.byte()
            self.number()
        else:
            raise ValueError(f"an import has the unknown kind {kind}")
        return kind


def _leb128(value: int) -> bytes:
    out = bytearray()
    while True:
        byte, value = value & 0x7F, value >> 7
        out.append(byte | (0x80 if value else 0))
        if not value:
            return bytes(out)


def _name(text: str) -> bytes:
    encoded = text.encode()
    return _leb128(len(encoded)) + encoded


def _sections(module: bytes) -> list[tuple[int, bytes]]:
    if module[:8] != b"\0asm\1\0\0\0":
        raise ValueError("it is not a core WebAssembly module")
    reader, sections = _Reader(module, 8), []
    while reader.position < len(module):
        number, length = reader.byte(), reader.number()
        sections.append((number, module[reader.position : reader.position + length]))
        reader.position += length
    return sections


def _with_entries(section: bytes, *entries: bytes) -> tuple[bytes, int]:
    """Return a section that is a list with more entries, and the index of the first of them."""
    reader = _Reader(section)
    count = reader.number()
    rest = section[reader.position :]
    return _leb128(count + len(entries)) + rest + b"".join(entries), count


def _imports(section: bytes) -> list[tuple[str, str, bytes, bool]]:
    """Return module, name and descriptor of each import, and true if it is a function."""
    reader, imports = _Reader(section), []
    for _ in range(reader.number()):
        module, name, start = reader.name(), reader.name(), reader.position
        kind = reader.skip_descriptor()
        descriptor = section[start : reader.position]
        imports.append((module, name, descriptor, kind == _FUNCTION_KIND))
    return imports


def _exports(section: bytes) -> dict[str, int]:
    """Return the indices of the exports by name."""
    reader, exports = _Reader(section), {}
    for _ in range(reader.number()):
        name = reader.name()
        reader.byte()
        exports[name] = reader.number()
    return exports


def _calling(functions: list[int]) -> bytes:
    """Return the code of a function that calls others, each with the result of the one before."""
    code = b"".join(bytes([_CALL]) + _leb128(index) for index in functions)
    body = b"\0" + code + bytes([_END])
    return _leb128(len(body)) + body


def make_command(module: bytes) -> bytes:
    """Convert a library to a command.

    Functions that the library imports from its own host, outside of WASI, become ``fd_read``, which
    must have their type. No descriptor has the number that a request to the host has, so a guest
    that calls its host gets an error.

    Raises:
        ValueError: The module has another form.
    """
    sections = _sections(module)
    known = {number: content for number, content in sections if number}
    imports, exports = _imports(known[_IMPORT]), _exports(known[_EXPORT])
    functions = [(origin, name) for origin, name, _, is_function in imports if is_function]
    if (_WASI, "proc_exit") not in functions:
        raise ValueError("it does not import proc_exit")
    if "run" not in exports or "_start" in exports:
        raise ValueError("it is not a library that exports `run`")

    renamed = [
        (_WASI, "fd_read", descriptor) if origin != _WASI else (origin, name, descriptor)
        for origin, name, descriptor, _ in imports
    ]
    ending = [exports["run"], functions.index((_WASI, "proc_exit"))]
    start = [exports[_INITIALIZE]] if _INITIALIZE in exports else []
    added = {"_start": _calling(start + ending)}
    data = known.get(_DATA, b"")
    if _WIZER_INITIALIZE in exports:
        if data.count(_INIT_TEXT) != 1:
            raise ValueError("it does not contain the code of its initialization once")
        data = data.replace(_INIT_TEXT, _NEW_INIT_TEXT)
        added["wizer.resume"] = _calling(ending)

    types, added_type = _with_entries(known[_TYPE], b"\x60\0\0")
    first = len(functions) + _Reader(known[_FUNCTION]).number()
    exported = [
        _name(name) + bytes([_FUNCTION_KIND]) + _leb128(first + i) for i, name in enumerate(added)
    ]
    changed = {
        _TYPE: types,
        _IMPORT: _leb128(len(renamed))
        + b"".join(_name(origin) + _name(name) + rest for origin, name, rest in renamed),
        _FUNCTION: _with_entries(known[_FUNCTION], *[_leb128(added_type)] * len(added))[0],
        _EXPORT: _with_entries(known[_EXPORT], *exported)[0],
        _CODE: _with_entries(known[_CODE], *added.values())[0],
        _DATA: data,
    }
    out = bytearray(module[:8])
    for number, content in sections:
        content = changed.get(number, content)
        out += bytes([number]) + _leb128(len(content)) + content
    return bytes(out)
