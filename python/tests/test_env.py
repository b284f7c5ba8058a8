"""Environments: the resolution of packages, with wheels that are written here, and stand-ins.

The tests of the resolution need pip, and no network. Those that run an interpreter need an
environment: the variable ``MANDELBOX_TEST_ENV`` names its folder.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("pip", reason="environments need pip")

from mandelbox.env import _adapters, _create, _packages, _wasm
from mandelbox.env._errors import EnvironmentProblem
from mandelbox.env._interpreter import Interpreter
from mandelbox.env._names import parse
from mandelbox.env._pip import Source

INTERPRETER = Interpreter("0" * 64, {"numpy": "2.5.2", "pandas": "3.0.6"}, frozenset())
#: Sources whose wheels are in use.
SOURCES: list[Source] = []
ENVIRONMENT = os.environ.get("MANDELBOX_TEST_ENV")
needs_environment = pytest.mark.skipif(
    ENVIRONMENT is None, reason="MANDELBOX_TEST_ENV names no environment"
)


def write_wheel(
    folder: Path, name: str, version: str, requires: list[str] = [], tag: str = "py3-none-any"
) -> Path:
    """Write a wheel with one module."""
    base = f"{name.replace('-', '_')}-{version}"
    path = folder / f"{base}-{tag}.whl"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {text}" for text in requires]
    info = f"{base}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name.replace('-', '_')}/__init__.py", f"version = {version!r}\n")
        archive.writestr(f"{name.replace('-', '_')}/fast.so", b"compiled")
        archive.writestr(f"{info}/METADATA", "\n".join(lines) + "\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def resolve(folder: Path, *texts: str) -> tuple[_packages.Resolved, list[str]]:
    reports: list[str] = []
    source = Source([str(folder)], index=False)
    SOURCES.append(source)
    resolver = _packages.Resolver(INTERPRETER, source, reports.append)
    return resolver.resolve([parse(text, "test") for text in texts]), reports


def test_requirements_are_followed(tmp_path: Path) -> None:
    write_wheel(
        tmp_path,
        "tasks",
        "1.0",
        ["helper<2", "numpy<2", 'old; python_version < "3.12"', 'extra; extra == "all"'],
    )
    write_wheel(tmp_path, "helper", "1.5", ["deep"])
    write_wheel(tmp_path, "helper", "2.0")
    write_wheel(tmp_path, "deep", "3")
    write_wheel(tmp_path, "extra", "4")
    found, _ = resolve(tmp_path, "tasks")
    versions = {name: package.version for name, package in found.packages.items()}
    assert versions == {"tasks": "1.0", "helper": "1.5", "deep": "3"}
    assert found.differing == ["tasks 1.0 requires numpy<2; the interpreter has version 2.5.2"]
    found, _ = resolve(tmp_path, "tasks[all]")
    assert set(found.packages) == {"tasks", "helper", "deep", "extra"}


def test_stand_ins_are_used_where_they_are_needed(tmp_path: Path) -> None:
    write_wheel(tmp_path, "tasks", "1.0", ["h5py", "pandas<2", "numcodecs"])
    tag = "cp312-cp312-manylinux2014_x86_64"
    write_wheel(tmp_path, "numcodecs", "0.13.1", tag=tag)
    write_wheel(tmp_path, "numcodecs", "0.16.0", tag=tag)
    found, _ = resolve(tmp_path, "tasks")
    assert found.adapters == {"h5py", "numcodecs"}
    assert found.changes == {"pandas"}
    assert found.packages["numcodecs"].version == "0.13.1"
    site = tmp_path / "site"
    _packages.unpack(found.packages["numcodecs"], site)
    assert sorted(path.name for path in (site / "numcodecs").iterdir()) == ["__init__.py"]


def test_compiled_packages_are_reported(tmp_path: Path) -> None:
    write_wheel(tmp_path, "tasks", "1.0", ["torch"])
    write_wheel(tmp_path, "torch", "2", tag="cp312-cp312-manylinux2014_x86_64")
    found, reports = resolve(tmp_path, "tasks")
    assert "required by tasks 1.0" in found.missing["torch"]
    assert any(text.startswith("warning: torch is missing") for text in reports)
    with pytest.raises(EnvironmentProblem, match="torch: required by"):
        resolve(tmp_path, "torch")


def test_locks_are_checked(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path, "tasks", "1.0")
    package = _packages.read_package(wheel, is_compiled=False)
    entry = {"name": "tasks", "version": "1.0", "sha256": package.sha256}
    entry["without_compiled_code"] = False
    source = Source([str(tmp_path)], index=False)
    fetch = lambda: _create._fetch_locked({"packages": [entry]}, source, lambda text: None)
    assert fetch().packages["tasks"].sha256 == package.sha256
    entry["sha256"] = "0" * 64
    with pytest.raises(EnvironmentProblem, match="not that of the lock"):
        fetch()


def test_wrong_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="exists already"):
        _create.create(tmp_path, ["x"])
    file = tmp_path / "requirements.txt"
    file.write_text("# a comment\nnumpy ; ;\n")
    with pytest.raises(EnvironmentProblem, match=r"requirements.txt:2: not a requirement"):
        _create.create(tmp_path / "new", requirements=[file])
    with pytest.raises(EnvironmentProblem, match="is not a lock"):
        (tmp_path / "lock.json").write_text("{}")
        _create.create(tmp_path / "new", lock=tmp_path / "lock.json")
    assert not (tmp_path / "new").exists()


def test_stand_ins_have_files() -> None:
    shims = Path(_create.__file__).parent / "guest" / "shims"
    for adapter in _adapters.ADAPTERS.values():
        for module in adapter.modules:
            base = shims.joinpath(*module.split("."))
            assert base.with_suffix(".py").exists() or (base / "__init__.py").exists(), module


def test_other_modules_are_no_interpreter() -> None:
    with pytest.raises(ValueError, match="not a core WebAssembly module"):
        _wasm.make_command(b"text")


def load_blosc():
    """Load the stand-in for Blosc next to the real one."""
    path = Path(_create.__file__).parent / "guest/shims/numcodecs/blosc.py"
    spec = importlib.util.spec_from_file_location("blosc_stand_in", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", "i8"])
@pytest.mark.parametrize("shuffle", [0, 1])
@pytest.mark.parametrize("size", [0, 1, 100, 70_000, 300_001])
def test_blosc_data_is_exchanged_with_the_real_library(dtype: str, shuffle: int, size: int) -> None:
    numcodecs = pytest.importorskip("numcodecs", reason="needs numcodecs")
    numpy = pytest.importorskip("numpy")
    stand_in = load_blosc()
    values = (numpy.arange(size) // 7 % 1000).astype(dtype)
    ours = stand_in.Blosc("lz4", 5, shuffle).encode(values)
    real = numcodecs.Blosc("lz4", 5, shuffle)
    if size:
        assert bytes(real.decode(ours)) == values.tobytes()
        for name in ("lz4", "zlib"):
            theirs = numcodecs.Blosc(name, 5, shuffle).encode(values)
            assert bytes(stand_in.Blosc().decode(theirs)) == values.tobytes()


def run_in(environment: str, script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    from mandelbox import _program

    words = [_program.path(), "exec", str(script), f"--python={environment}", "--", *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@needs_environment
def test_scripts_end_as_natively(tmp_path: Path) -> None:
    assert ENVIRONMENT is not None
    script = tmp_path / "task.py"
    for text in (
        "import sys\nprint('a', sys.argv[1:])\nsys.exit(7)",
        "print('before')\n\ndef f():\n    raise ValueError('wrong')\n\nf()",
        "raise SystemExit('a message')",
        "import sys, os\nprint(__name__, os.path.basename(__file__))",
    ):
        script.write_text(text)
        here = run_in(ENVIRONMENT, script, "x", "y")
        native = subprocess.run(
            [sys.executable, str(script), "x", "y"], capture_output=True, text=True, check=False
        )
        assert (here.returncode, here.stdout) == (native.returncode, native.stdout), here.stderr
        last = here.stderr.strip().splitlines()[-1:]
        assert last == native.stderr.strip().splitlines()[-1:]
        assert "boot.py" not in here.stderr


@needs_environment
def test_missing_imports_are_named(tmp_path: Path) -> None:
    from mandelbox.env import check

    assert ENVIRONMENT is not None
    (tmp_path / "task.py").write_text("import json\nimport no_such_module\nimport helper\n")
    (tmp_path / "helper.py").write_text("from torch import nn\n")
    task = {"name": "T", "executable": "task.py", "input_type": "Any", "output_type": "Any"}
    manifest = {"manifest_version": "1", "task_list": [task]}
    (tmp_path / "__FRACTAL_MANIFEST__.json").write_text(json.dumps(manifest))
    (found,) = check(ENVIRONMENT, tmp_path)
    first, second = found["missing"]
    assert first.startswith("line 2, `import no_such_module`: no module `no_such_module`")
    assert "line 3, `import helper`: no module `torch`" in second
    assert second.endswith("helper.py line 1")
