"""Calls that start from snapshots of an interpreter.

Those that run Python need an environment: the variable ``MANDELBOX_TEST_ENV`` names its folder.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pip", reason="environments need pip")

import mandelbox
from mandelbox import _program
from mandelbox.env import _create, _interpreter, _wasm
from mandelbox.env._errors import EnvironmentProblem

ENVIRONMENT = os.environ.get("MANDELBOX_TEST_ENV", "")
needs_environment = pytest.mark.skipif(
    not ENVIRONMENT, reason="MANDELBOX_TEST_ENV names no environment"
)
#: Start of a call, by the option of `exec`.
PLAIN, SNAPSHOT = "--no-snapshots", "--snapshot"


def section(number: int, *entries: bytes) -> bytes:
    content = _wasm._leb128(len(entries)) + b"".join(entries)
    return bytes([number]) + _wasm._leb128(len(content)) + content


def library(data: bytes) -> bytes:
    """Return a library whose `run` returns 1 for `_initialize` and 40 for `wizer.initialize`."""
    name = _wasm._name
    wasi = name("wasi_snapshot_preview1") + name("proc_exit") + b"\0\0"
    exports = [name("memory") + b"\2\0", name("_initialize") + b"\0\1"]
    exports += [name("wizer.initialize") + b"\0\2", name("run") + b"\0\3"]
    bodies = [
        b"\0\x41\0\x41\0\x28\2\0\x41\1\x6a\x36\2\0\x0b",  # memory[0] += 1
        b"\0\x41\4\x41\x28\x36\2\0\x0b",  # memory[4] = 40
        b"\0\x41\0\x28\2\0\x41\4\x28\2\0\x6a\x0b",  # memory[0] + memory[4]
    ]
    return (
        b"\0asm\1\0\0\0"
        + section(1, b"\x60\1\x7f\0", b"\x60\0\0", b"\x60\0\1\x7f")
        + section(2, wasi)
        + section(3, b"\1", b"\1", b"\2")
        + section(5, b"\0\1")
        + section(7, *exports)
        + section(10, *[_wasm._leb128(len(body)) + body for body in bodies])
        + section(11, b"\0\x41\x80\x08\x0b" + _wasm._leb128(len(data)) + data)
    )


def test_a_module_serves_both_kinds_of_calls(tmp_path: Path) -> None:
    module = tmp_path / "tool.wasm"
    made = _wasm.make_command(library(b"abc\0" + _wasm._INIT_TEXT))
    assert b"import encodings" not in made
    assert made.endswith(b"exec(open('/boot/init.py').read())".ljust(56, b"\0"))
    module.write_bytes(made)
    codes = []
    for option in (PLAIN, SNAPSHOT):
        words = [_program.path(), "exec", str(module), option, "--no-cache", "--quiet"]
        codes.append(subprocess.run(words, check=False).returncode)
    assert codes == [1, 41]
    with pytest.raises(ValueError, match="does not contain the code of its initialization"):
        _wasm.make_command(library(b"abc"))


def test_preloaded_modules_must_exist(tmp_path: Path) -> None:
    for folder in ("lib", "boot", "site/tasks"):
        (tmp_path / folder).mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "lib" / _interpreter.LIBRARY, "w") as archive:
        for name in ("json/__init__.pyc", "argparse.pyc", "scipy/ndimage/__init__.pyc"):
            archive.writestr(name, b"")
    _create._write_preloaded(tmp_path, ["tasks", "json"])
    names = json.loads((tmp_path / "boot" / "preload.json").read_text())
    assert names == ["json", "argparse", "scipy.ndimage", "tasks"]
    # What zarr imports when it is used, as far as it exists.
    for name in ("zarr", "fsspec/implementations/local"):
        (tmp_path / "site" / name).mkdir(parents=True)
    _create._write_preloaded(tmp_path, ["zarr", "tasks"])
    names = json.loads((tmp_path / "boot" / "preload.json").read_text())
    assert names[-3:] == ["zarr", "tasks", "fsspec.implementations.local"]
    with pytest.raises(EnvironmentProblem, match=r"numpy.fft: the environment has no such module"):
        _create._write_preloaded(tmp_path, ["numpy.fft"])


def test_scripts_of_task_packages_are_found(tmp_path: Path) -> None:
    package = tmp_path / "site" / "tasks"
    (package / "inner").mkdir(parents=True)
    for name in ("inner/a.py", "b.py"):
        (package / name).write_text("")
    tasks = [
        {"executable": "inner/a.py"},
        {"executable_non_parallel": "b.py", "executable_parallel": "inner/a.py"},
        {"executable": "missing.py"},
        {"executable": "../tasks/b.py"},
        {"executable": "tool.wasm"},
        {"executable": 1},
    ]
    (package / "__FRACTAL_MANIFEST__.json").write_text(json.dumps({"task_list": tasks}))
    other = tmp_path / "site" / "other"
    other.mkdir()
    (other / "__FRACTAL_MANIFEST__.json").write_text("[]")
    assert _create._scripts_of_packages(tmp_path) == ["/site/tasks/inner/a.py", "/site/tasks/b.py"]


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="for snapshots only"):
        _create.create(tmp_path / "env", snapshot=False, preload=["json"])
    with pytest.raises(EnvironmentProblem, match="not the name of a module"):
        _create.create(tmp_path / "env", preload=["json; x"])
    assert not (tmp_path / "env").exists()


def test_snapshots_are_requested_in_the_description() -> None:
    assert _create._description(snapshot=True)["snapshot"] is True
    assert "snapshot" not in _create._description(snapshot=False)


def run(script: Path, start: str, *options: str) -> subprocess.CompletedProcess[bytes]:
    words = [_program.path(), "exec", str(script), "--quiet", start]
    if not any(option.startswith("--python") for option in options):
        words.append(f"--python={ENVIRONMENT}")
    words += options
    return subprocess.run(words, capture_output=True, stdin=subprocess.DEVNULL, check=False)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    folder = tmp_path / "scripts"
    folder.mkdir()
    return folder / "task.py"


@needs_environment
def test_results_are_the_same(script: Path) -> None:
    script.write_text(
        "import sys\n"
        "import numpy as np\n"
        "from scipy.ndimage import gaussian_filter\n"
        "image = np.arange(4096, dtype='f4').reshape(64, 64) % 97\n"
        "sys.stdout.buffer.write(gaussian_filter(image, 2).tobytes())\n"
    )
    plain, snapshot = (run(script, start) for start in (PLAIN, SNAPSHOT))
    assert plain.returncode == 0, plain.stderr
    assert len(plain.stdout) == 4 * 4096
    assert (snapshot.returncode, snapshot.stderr) == (0, plain.stderr)
    assert snapshot.stdout == plain.stdout


@needs_environment
def test_random_numbers_are_those_of_the_call(script: Path) -> None:
    script.write_text(
        "import json, os, random, secrets, tempfile, uuid\n"
        "import numpy as np\n"
        "names = next(tempfile._get_candidate_names())\n"
        "numbers = [random.random(), np.random.rand(), np.random.default_rng().random()]\n"
        "print(json.dumps([*numbers, secrets.token_hex(8), str(uuid.uuid4()), names]))\n"
    )
    first, second = (json.loads(run(script, SNAPSHOT).stdout) for _ in range(2))
    assert [a for a, b in zip(first, second) if a == b] == []
    fixed = [run(script, SNAPSHOT, "--deterministic").stdout for _ in range(2)]
    assert fixed[0] == fixed[1]
    assert len(json.loads(fixed[0])) == 6


#: Scripts that end in different ways.
ENDS = (
    "import sys\nprint('a', sys.argv[1:])\nsys.exit(7)",
    "print('before')\n\ndef f():\n    raise ValueError('wrong')\n\nf()",
    "raise SystemExit('a message')",
    "import numpy\nnumpy.zeros(3)[5]",
    "def f(n):\n    return f(n - 1) if n else 1 // 0\nf(20)",
    "import no_such_module",
    "if True print(1)",
    "import atexit, sys\natexit.register(print, 'last')\nprint(sys.stdin.read())",
    "import sys, os\nprint(__name__, __file__ == sys.argv[0], dict(os.environ), sys.path)",
)


@needs_environment
def test_scripts_end_the_same(script: Path) -> None:
    # All scripts are written first, as a folder has one snapshot.
    scripts = [script.with_name(f"task_{i}.py") for i in range(len(ENDS))]
    for path, text in zip(scripts, ENDS):
        path.write_text(text)
    for path in scripts:
        plain, snapshot = (run(path, start, "--", "x", "y") for start in (PLAIN, SNAPSHOT))
        assert (snapshot.returncode, snapshot.stdout) == (plain.returncode, plain.stdout)
        assert snapshot.stderr == plain.stderr


@needs_environment
def test_files_that_are_not_closed_are_written(script: Path, tmp_path: Path) -> None:
    script.write_text(
        "import keeper\n"
        "file = open('/out/own', 'w')\n"
        "file.write('text')\n"
        "def use():\n"
        "    return file\n"
    )
    (script.parent / "keeper.py").write_text("file = open('/out/held', 'w')\nfile.write('text')\n")
    for start in (PLAIN, SNAPSHOT):
        out = tmp_path / start
        out.mkdir()
        done = run(script, start, f"--mount={out}::/out:rw", f"--mount={script.parent}")
        assert done.returncode == 0, done.stderr
        assert [(out / name).read_text() for name in ("own", "held")] == ["text", "text"]

#: Reports what a call finds, and then changes all of it.
STATE = """
import builtins, decimal, gc, json, locale, logging, os, pathlib, random, sys, warnings
import numpy as np
import pandas as pd

found = {
    "builtins": hasattr(builtins, "LEAK"),
    "attributes": [hasattr(thing, "LEAK") for thing in (json, np, pd, os, sys)],
    "replaced functions": [json.dumps.__module__, np.zeros.__name__, os.getcwd.__name__],
    "modules": [name for name in ("leak", "tabnanny") if name in sys.modules],
    "paths": list(sys.path),
    "finders": len(sys.meta_path),
    "environment": dict(os.environ),
    "folder": os.getcwd(),
    "files": [sorted(os.listdir(path)) for path in (".", "/tmp")],
    "warnings": len(warnings.filters),
    "loggers": [len(logging.root.handlers), logging.root.level],
    "recursion": sys.getrecursionlimit(),
    "collector": [gc.isenabled(), gc.get_threshold()],
    "decimal": decimal.getcontext().prec,
    "numpy": [np.geterr()["divide"], np.get_printoptions()["precision"]],
    "pandas": pd.get_option("display.max_rows"),
    "locale": locale.setlocale(locale.LC_ALL),
    "arguments": sys.argv[1:],
}
drawn = [random.random(), np.random.rand(), np.random.default_rng().random()]
sys.stdout.write(json.dumps([found, drawn]))
sys.stdout.flush()

builtins.LEAK = True
for thing in (json, np, pd, os, sys):
    thing.LEAK = True
json.dumps = np.zeros = os.getcwd = lambda *more: "leak"
sys.modules["leak"] = json
import tabnanny
sys.path.append("/leak")
sys.meta_path.append(object())
os.environ["LEAK"] = "1"
for name in ("leak", "/tmp/other"):
    with open(name, "w") as file:
        file.write("text")
os.mkdir("folder")
os.chdir("folder")
warnings.simplefilter("error")
logging.basicConfig(level=10)
sys.setrecursionlimit(5000)
gc.disable()
gc.set_threshold(1)
decimal.getcontext().prec = 3
np.seterr(divide="raise")
np.set_printoptions(precision=1)
pd.set_option("display.max_rows", 3)
random.seed(1)
np.random.seed(1)
kept_open = open("/tmp/other")
raise SystemExit(int(sys.argv[1]))
"""


def states(script: Path, **options: Any) -> list[Any]:
    """Return what each of five calls in one worker finds and draws."""
    script.write_text(STATE)
    with mandelbox.batch(
        script, contract="argv", python=ENVIRONMENT, jobs=1, **options
    ) as calls:
        # One that fails, too.
        results = [calls.call(argv=[code]) for code in "00100"]
    assert [result.exit_code for result in results] == [0, 0, 1, 0, 0], results[0].stderr
    return [json.loads(result.stdout) for result in results]


@needs_environment
@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_no_state_passes_from_call_to_call(script: Path, isolation: str) -> None:
    found, drawn = zip(*states(script, isolation=isolation))
    arguments = [facts.pop("arguments") for facts in found]
    assert arguments == [["0"], ["0"], ["1"], ["0"], ["0"]]
    assert [facts for facts in found if facts != found[0]] == []
    assert not found[0]["builtins"] and not any(found[0]["attributes"])
    assert (found[0]["modules"], found[0]["environment"]) == ([], {})
    assert found[0]["files"] == [[], []]
    numbers = [number for call in drawn for number in call]
    assert len(set(numbers)) == len(numbers)


@needs_environment
def test_deterministic_calls_are_repeatable(script: Path) -> None:
    first, second = (states(script, deterministic=True) for _ in range(2))
    assert first == second
    numbers = [number for _, drawn in first for number in drawn]
    assert len(set(numbers)) == len(numbers)


def copy_environment(target: Path, modules: list[str]) -> Path:
    """Copy the environment without its packages, with other modules in its snapshots."""
    source = Path(ENVIRONMENT)
    target.mkdir()
    for name in ("lib", "boot"):
        shutil.copytree(source / name, target / name)
    for name in ("python.wasm", "interpreter.json"):
        shutil.copyfile(source / name, target / name)
    (target / "site").mkdir()
    (target / "boot" / "preload.json").write_text(json.dumps(modules))
    return target


@needs_environment
def test_log_lines_are_the_same(script: Path, tmp_path: Path) -> None:
    # Packages that configure `logging` when they are imported would do so in all calls.
    option = f"--python={copy_environment(tmp_path / 'env', ['logging'])}"
    script.write_text("import logging\nlogging.warning('one')\nlogging.error('two')")
    plain, snapshot = (run(script, start, option) for start in (PLAIN, SNAPSHOT))
    assert plain.stderr == b"WARNING:root:one\nERROR:root:two\n"
    assert snapshot.stderr == plain.stderr


@needs_environment
def test_a_changed_package_gives_a_new_snapshot(script: Path, tmp_path: Path) -> None:
    environment = copy_environment(tmp_path / "env", ["no_such_module", "own_package"])
    script.write_text(
        "import sys\n"
        "was_there = 'own_package' in sys.modules\n"
        "import own_package\n"
        "print(was_there, own_package.VALUE, 'boot' in sys.modules)\n"
    )
    module = environment / "site" / "own_package.py"
    for value in (1, 22):
        module.write_text(f"VALUE = {value}\n")
        done = run(script, SNAPSHOT, f"--python={environment}")
        assert done.stdout.decode() == f"True {value} False\n", done.stderr
    done = run(script, PLAIN, f"--python={environment}")
    assert done.stdout.decode() == "False 22 False\n", done.stderr
