"""Command line of ``python -m mandelbox.env``."""

from __future__ import annotations

import argparse
import sys

from . import check, create
from ._create import PRELOADED
from ._errors import EnvironmentProblem


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "create":
            return _create(options)
        return _check(options)
    except EnvironmentProblem as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mandelbox.env",
        description="Create and check environments for tasks in Python.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser(
        "create",
        help="create an environment with packages",
        description="Create an environment: an interpreter built for WASI, packages without "
        "compiled code, and stand-ins for compiled modules that they import.",
    )
    make.add_argument("folder", metavar="ENV", help="folder of the environment; must not exist")
    make.add_argument("packages", metavar="PACKAGE", nargs="*", help="requirement, as for pip")
    make.add_argument(
        "--requirement",
        "-r",
        metavar="FILE",
        action="append",
        default=[],
        help="file with requirements, one in a line; repeatable",
    )
    make.add_argument(
        "--lock",
        metavar="FILE",
        help="`lock.json` of another environment: use the same files, checked by their digests",
    )
    make.add_argument(
        "--find-links",
        metavar="FOLDER",
        action="append",
        default=[],
        help="folder with wheels, as for pip; repeatable",
    )
    make.add_argument(
        "--no-index", action="store_true", help="use only the wheels of --find-links"
    )
    make.add_argument(
        "--no-compile", action="store_true", help="do not compile the modules of packages"
    )
    make.add_argument(
        "--no-snapshot",
        action="store_true",
        help="start the interpreter from scratch in each call",
    )
    make.add_argument(
        "--preload",
        metavar="MODULE",
        action="append",
        default=[],
        help="module that the snapshot contains, in addition to "
        f"{', '.join(PRELOADED)}; repeatable",
    )
    look = commands.add_parser(
        "check",
        help="report which tasks of a package run in an environment",
        description="Import what each task imports, in the sandbox.",
    )
    look.add_argument("folder", metavar="ENV", help="folder of the environment")
    look.add_argument(
        "package",
        metavar="TASKPACKAGE",
        help="folder of a task package, or the name of a package in the environment",
    )
    return parser


def _create(options: argparse.Namespace) -> int:
    lock = create(
        options.folder,
        options.packages,
        requirements=options.requirement,
        lock=options.lock,
        find_links=options.find_links,
        index=not options.no_index,
        compile=not options.no_compile,
        snapshot=not options.no_snapshot,
        preload=options.preload,
        report=lambda text: print(text, file=sys.stderr),
    )
    for package in lock["packages"]:
        print(f"{package['name']} {package['version']}")
    return 0


def _check(options: argparse.Namespace) -> int:
    found = check(options.folder, options.package)
    n_wrong = 0
    for task in found:
        n_wrong += bool(task["missing"])
        state = "does not run" if task["missing"] else "runs"
        print(f"{state:14}{task['script']}")
        for text in task["missing"]:
            print(f"{'':14}{text}")
    print(f"{len(found) - n_wrong} of {len(found)} scripts find all that they import")
    return 1 if n_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
