#!/usr/bin/env python3
"""Rewrites a WASI reactor that runs a program into a command.

`make_command.py REACTOR.wasm COMMAND.wasm`: the reactor exports `_initialize` (maybe) and `run`, which returns the exit
code. The command exports `_start`, which calls the two and hands the code to `proc_exit`. Functions that the reactor
imports from its own runner, outside WASI, become `fd_read`, which has the type of `host.call`; as no descriptor has
the number of a request, a guest that does call its runner gets an error code.

`make_command.py --snapshot REACTOR.wasm MODULE.wasm`: makes a module of which mandelbox can make snapshots. It keeps
`run`, and `wizer.initialize`, which starts the interpreter. The text that the interpreter runs then is replaced: it
reads the script /snapshot/init.py, which imports what tasks need.
"""

import sys
from pathlib import Path

WASI = "wasi_snapshot_preview1"
TYPE, IMPORT, FUNCTION, EXPORT, CODE = 1, 2, 3, 7, 10
FUNCTION_KIND = 0
CALL, END = 0x10, 0x0B
DATA = 11
# What the interpreter runs when it starts for a snapshot, and what it runs instead; of the same length.
INIT_TEXT = b"import encodings, io, os, sys, json, csv, re, _colorize\0"
NEW_INIT_TEXT = b"exec(open('/snapshot/init.py').read())".ljust(len(INIT_TEXT), b"\0")


class Reader:
    """Numbers, names and limits from the bytes of a section."""

    def __init__(self, data, position=0):
        self.data, self.position = data, position

    def byte(self):
        self.position += 1
        return self.data[self.position - 1]

    def number(self):
        """An unsigned LEB128 number."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def name(self):
        length = self.number()
        self.position += length
        return self.data[self.position - length : self.position].decode()

    def limits(self):
        flags = self.number()
        self.number()
        if flags & 1:
            self.number()

    def descriptor(self):
        """What an import is. Returns its kind, and the type's index if it is a function."""
        kind = self.byte()
        if kind == FUNCTION_KIND:
            return kind, self.number()
        if kind == 1:  # table
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
            raise ValueError(f"an import of the unknown kind {kind}")
        return kind, None


def leb128(value):
    out = bytearray()
    while True:
        byte, value = value & 0x7F, value >> 7
        out.append(byte | (0x80 if value else 0))
        if not value:
            return bytes(out)


def name_bytes(name):
    encoded = name.encode()
    return leb128(len(encoded)) + encoded


def sections_of(module):
    if module[:8] != b"\0asm\1\0\0\0":
        raise ValueError("this is no core WebAssembly module")
    reader, sections = Reader(module, 8), []
    while reader.position < len(module):
        number, length = reader.byte(), reader.number()
        sections.append((number, module[reader.position : reader.position + length]))
        reader.position += length
    return sections


def with_one_more(section, entry):
    """A section that is a list, with an entry appended. Returns it and the entry's index."""
    reader = Reader(section)
    count = reader.number()
    return leb128(count + 1) + section[reader.position :] + entry, count


def read_imports(section):
    """Imports as (module, name, bytes of the descriptor, whether it is a function)."""
    reader, imports = Reader(section), []
    for _ in range(reader.number()):
        module, name, start = reader.name(), reader.name(), reader.position
        kind, _ = reader.descriptor()
        imports.append((module, name, section[start : reader.position], kind == FUNCTION_KIND))
    return imports


def read_exports(section):
    """Exports as {name: (kind, index)}."""
    reader, exports = Reader(section), {}
    for _ in range(reader.number()):
        name = reader.name()
        exports[name] = (reader.byte(), reader.number())
    return exports


def without_own_imports(imports):
    """The import section in which functions outside WASI have become `fd_read`."""
    renamed = [
        (WASI, "fd_read", descriptor) if module != WASI else (module, name, descriptor)
        for module, name, descriptor, _ in imports
    ]
    return leb128(len(renamed)) + b"".join(name_bytes(m) + name_bytes(n) + d for m, n, d in renamed)


def build(module, sections, new):
    """The module with some of its sections replaced."""
    out = bytearray(module[:8])
    for number, content in sections:
        content = new.get(number, content)
        out += bytes([number]) + leb128(len(content)) + content
    return bytes(out)


def make_for_snapshots(module):
    sections = sections_of(module)
    known = dict(section for section in sections if section[0])
    exports = read_exports(known[EXPORT])
    kept = [name for name in ("memory", "_initialize", "wizer.initialize", "run") if name in exports]
    if "wizer.initialize" not in kept or "run" not in kept:
        raise ValueError("the module exports no `wizer.initialize` or no `run`")
    if known[DATA].count(INIT_TEXT) != 1:
        raise ValueError("the module does not contain the text that it runs when it starts")
    entries = [name_bytes(name) + bytes([exports[name][0]]) + leb128(exports[name][1]) for name in kept]
    new = {
        IMPORT: without_own_imports(read_imports(known[IMPORT])),
        EXPORT: leb128(len(entries)) + b"".join(entries),
        DATA: known[DATA].replace(INIT_TEXT, NEW_INIT_TEXT),
    }
    return build(module, sections, new)


def make_command(module):
    sections = sections_of(module)
    known = dict(section for section in sections if section[0])
    imports = read_imports(known[IMPORT])
    exports = read_exports(known[EXPORT])
    functions = [(module, name) for module, name, _, is_function in imports if is_function]
    if (WASI, "proc_exit") not in functions:
        raise ValueError("the module does not import proc_exit")
    if "run" not in exports or "_start" in exports:
        raise ValueError("the module is no reactor with an export `run`")

    calls = [exports["_initialize"][1]] if "_initialize" in exports else []
    calls += [exports["run"][1], functions.index((WASI, "proc_exit"))]
    body = b"\0" + b"".join(bytes([CALL]) + leb128(index) for index in calls) + bytes([END])

    types, start_type = with_one_more(known[TYPE], b"\x60\0\0")
    n_defined = Reader(known[FUNCTION]).number()
    start = len(functions) + n_defined
    memory_kind, memory = exports["memory"]
    new = {
        TYPE: types,
        IMPORT: without_own_imports(imports),
        FUNCTION: with_one_more(known[FUNCTION], leb128(start_type))[0],
        EXPORT: leb128(2)
        + (name_bytes("memory") + bytes([memory_kind]) + leb128(memory))
        + (name_bytes("_start") + bytes([FUNCTION_KIND]) + leb128(start)),
        CODE: with_one_more(known[CODE], leb128(len(body)) + body)[0],
    }
    return build(module, sections, new)


def main():
    arguments = sys.argv[1:]
    make = make_command
    if arguments[:1] == ["--snapshot"]:
        make = make_for_snapshots
        del arguments[0]
    if len(arguments) != 2:
        sys.exit(__doc__)
    reactor, made = map(Path, arguments)
    made.write_bytes(make(reactor.read_bytes()))


if __name__ == "__main__":
    main()
