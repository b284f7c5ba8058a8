#!/usr/bin/env python3
"""Makes the calls of a run again with this Python and its numpy, and compares every byte of what they made.

`compare_natively.py WORK_DIR`: the scripts are called as Fractal calls them, with the args that the run recorded and
another output folder.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent / "scripts"


def main():
    work_dir = Path(sys.argv[1])
    names = {"0": "make_stacks.py", "1": "maximum_projection.py"}
    different = n_files = 0
    with tempfile.TemporaryDirectory() as scratch:
        native = Path(scratch) / "output"
        native.mkdir()
        for file in sorted(work_dir.glob("[01]_*/*.args.json")):
            args = json.loads(file.read_text())
            sandboxed = args["output_path"]
            args["output_path"] = str(native)
            args["input_paths"] = [str(native) if path == sandboxed else path for path in args["input_paths"]]
            own, out = Path(scratch) / "args.json", Path(scratch) / "metadiff.json"
            own.write_text(json.dumps(args))
            script = SCRIPTS / names[file.parent.name[0]]
            subprocess.run([sys.executable, script, "-j", own, "--metadata-out", out], check=True)
        for file in sorted(native.iterdir()):
            n_files += 1
            if file.read_bytes() != (Path(sandboxed) / file.name).read_bytes():
                different += 1
                print(f"{file.name} differs", file=sys.stderr)
    print(f"{n_files} files, {different} different")
    return 1 if different or not n_files else 0


if __name__ == "__main__":
    sys.exit(main())
