"""What `check` and `speed` share: the program, the environments, and CPU time."""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import workflows

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
#: Default folder of the environments and the images.
FOLDER = Path(tempfile.gettempdir(), "python-tasks")
#: Exit code if something is missing that the comparison needs.
NOT_HERE = 3


class Missing(Exception):
    """Something cannot be had here."""


def find_program():
    """Returns the path of mandelbox."""
    path = os.environ.get("MANDELBOX") or ROOT / "target/release/mandelbox"
    if not Path(path).is_file():
        raise Missing(f"no program {path}: run `cargo build --release`, or set MANDELBOX")
    return str(Path(path).absolute())


def find_python():
    """Returns a Python for which the packages of that time have wheels."""
    for minor in (11, 10, 9):
        path = shutil.which(f"python3.{minor}")
        if path is not None:
            return path
    raise Missing("no Python 3.9, 3.10 or 3.11 on the PATH")


def run(words, **options):
    """Runs a command, and returns its output. Its error ends the comparison."""
    words = [str(word) for word in words]
    done = subprocess.run(words, text=True, capture_output=True, check=False, **options)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr[-3000:]}")
    return done.stdout


def native_python(folder, workflow):
    """Returns the Python of a virtual environment with the native packages."""
    target = folder / f"native-{workflow.version}"
    python = target / "bin/python"
    if not target.exists():
        print(f"installing {workflow.requirement} natively ...", flush=True)
        draft = folder / f"native-{workflow.version}.new"
        subprocess.run([find_python(), "-m", "venv", "--clear", str(draft)], check=True)
        # A wheel of fractal-tasks-core cannot require what it uses in extras.
        words = [draft / "bin/python", "-m", "pip", "install", "--quiet", workflow.requirement]
        done = subprocess.run([*map(str, words), *workflows.NATIVE_REQUIREMENTS], check=False)
        if done.returncode:
            raise Missing(f"pip cannot install {workflow.requirement}")
        draft.rename(target)
    return python


def environment(folder, workflow, program):
    """Returns the folder of an environment of the sandbox with the packages."""
    target = folder / f"environment-{workflow.version}"
    if not target.exists():
        print(f"creating an environment with {workflow.requirement} ...", flush=True)
        words = [sys.executable, "-m", "mandelbox.env", "create", str(target), workflow.requirement]
        settings = {**os.environ, "MANDELBOX": program, "PYTHONPATH": str(ROOT / "python")}
        if subprocess.run(words, env=settings, stdout=subprocess.DEVNULL, check=False).returncode:
            raise Missing("the environment cannot be created")
    return target


def cpu_seconds():
    """Returns the CPU time of all processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def skipping(main):
    """Returns the exit code of a program, which is `NOT_HERE` if something cannot be had."""
    try:
        return main()
    except Missing as error:
        print(f"skipped: {error}", file=sys.stderr)
        return NOT_HERE
